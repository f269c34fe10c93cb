"""Activation checkpointing: what the backward pass recomputes instead of reading it from memory.

`none` saves all activations, `block` only a block's input. `selective` saves what is expensive to compute (matrix
products and attention) and recomputes what is cheap: norms, rotations, activation functions, additions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from headway.model.attention import OPERATIONS

Recompute = Literal["none", "selective", "block"]
ATEN = torch.ops.aten
SAVED_OPERATIONS = frozenset(
    {
        ATEN.mm.default,
        ATEN.addmm.default,
        ATEN._scaled_dot_product_flash_attention.default,  # noqa: SLF001 (the kernels behind SDPA)
        ATEN._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
        ATEN._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001
        ATEN._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
        ATEN._efficient_attention_forward.default,  # noqa: SLF001
        *OPERATIONS,
    }
)
"""Operations whose results `selective` saves."""


def run_checkpointed(recompute: Recompute, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call `function`, saving for the backward pass only what `recompute` says."""
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if recompute == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    value: Tensor = checkpoint(function, *arguments, **options)
    return value


def _policy(_context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in SAVED_OPERATIONS else CheckpointPolicy.PREFER_RECOMPUTE
