"""The parameters of a stored checkpoint, as torch tensors."""

from collections.abc import Iterator

import numpy as np
import torch

from headway.checkpoint.reader import PARAMETER_PREFIX, StoredCheckpoint


def parameters(checkpoint: StoredCheckpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each whole parameter with its name in the model. Verifies the bytes while reading.

    Raises:
        DamageError: the manifest or a chunk is damaged.
    """
    for name, stored in sorted(checkpoint.manifest.tensors.items()):
        if name.startswith(PARAMETER_PREFIX):
            raw = checkpoint.read_tensor(name).reshape(-1).view(np.uint8)
            tensor = torch.from_numpy(raw).view(getattr(torch, stored.dtype)).reshape(stored.shape)
            yield name.removeprefix(PARAMETER_PREFIX), tensor
