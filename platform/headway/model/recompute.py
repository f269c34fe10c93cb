"""What the backward pass computes again instead of reading it from memory.

Between `none`, where all is kept, and `block`, where only a block's input is, `selective` keeps what is dear to compute
(matrix products and attention) and computes again what is cheap: norms, rotations, activations, additions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from headway.model import attention

Recompute = Literal["none", "selective", "block"]
ATEN = torch.ops.aten
KEPT = frozenset(
    {
        ATEN.mm.default,
        ATEN.addmm.default,
        ATEN._scaled_dot_product_flash_attention.default,  # noqa: SLF001 (the kernels behind SDPA)
        ATEN._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
        ATEN._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001
        ATEN._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
        ATEN._efficient_attention_forward.default,  # noqa: SLF001
        *attention.OPERATIONS,
    }
)
"""Operations whose results `selective` keeps."""


def recomputed(recompute: Recompute, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The value of `function`, of which the backward pass will find only what `recompute` keeps."""
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if recompute == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    value: Tensor = checkpoint(function, *arguments, **options)
    return value


def _policy(_context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
