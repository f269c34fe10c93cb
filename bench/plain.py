"""The plain FSDP2 training step that benchmarks compare with: what a practitioner writes first."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from headway.train.compute.transfer import DeviceBatch


def plain_step(
    model: FSDPModule,
    adam: torch.optim.Optimizer,
    batches: Sequence[DeviceBatch],
    loss: Callable[[DeviceBatch], Tensor],
) -> float:
    """One step: gradient accumulation, synchronized at the last micro-batch, clipping, AdamW; returns the last loss."""
    assert isinstance(model, torch.nn.Module)
    last = torch.zeros(())
    for index, batch in enumerate(batches):
        model.set_requires_gradient_sync(index == len(batches) - 1)
        last = loss(batch)
        last.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    adam.zero_grad()
    return last.item()  # a training loop logs its loss
