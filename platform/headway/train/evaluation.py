"""Held-out loss: the same micro-batches every time, shared among the ranks, summed in one order."""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from headway.data import Dataset
from headway.recipe import Recipe
from headway.train.preemption import Preemption
from headway.train.state import State
from headway.train.step import on_device


class Evaluation:
    """Evaluates on text that is never trained on."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, state: State, device: torch.device, agreement: dist.ProcessGroup
    ) -> None:
        self.state, self.device, self.agreement = state, device, agreement
        self.micro_batches = dataset.held_out(recipe.evaluation.tokens)

    @torch.no_grad()
    def loss(self, preemption: Preemption) -> float | None:
        """Mean held-out loss [nats per token]; None if some rank was asked to stop meanwhile. Collective."""
        try:
            losses = self._losses(preemption)
        finally:
            for module in self.state.model.modules():  # without a backward pass FSDP leaves parameters gathered
                if isinstance(module, FSDPModule):
                    module.reshard()
        if losses is None:
            return None
        total = losses.cpu()
        dist.all_reduce(total, group=self.agreement)
        return float(total.sum()) / sum(batch.targets.size for batch in self.micro_batches)

    def _losses(self, preemption: Preemption) -> torch.Tensor | None:
        """Summed loss of each micro-batch that this rank computed, zero for the others; None if broken off."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        count = len(self.micro_batches)
        losses = torch.zeros(count, dtype=torch.float64, device=self.device)
        for first in range(0, count, ranks):
            if self._asked(preemption):
                return None
            index = first + rank
            inputs, targets, documents = on_device(self.micro_batches[index % count], self.device)
            loss = self.state.model(inputs, targets, documents)
            if index < count:
                losses[index] = loss
        return losses

    def _asked(self, preemption: Preemption) -> bool:
        asked = torch.tensor([preemption.level], dtype=torch.float64)
        dist.all_reduce(asked, group=self.agreement)
        return bool(asked.item())
