"""The parameters of a stored checkpoint, as torch tensors."""

from collections.abc import Iterator

import numpy as np
import torch

from headway.checkpoint.reader import PARAMETERS, StoredCheckpoint


def parameters(checkpoint: StoredCheckpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters by their names in the model, whole, one by one: verified as they are read.

    Raises:
        DamageError: the manifest or a chunk is not what was written.
    """
    for name, stored in sorted(checkpoint.manifest.tensors.items()):
        if name.startswith(PARAMETERS):
            raw = checkpoint.tensor(name).reshape(-1).view(np.uint8)
            tensor = torch.from_numpy(raw).view(getattr(torch, stored.dtype)).reshape(stored.shape)
            yield name.removeprefix(PARAMETERS), tensor
