"""Held-out loss: the same micro-batches every time, shared among the ranks, summed in one order."""

import math

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from headway.data import Dataset
from headway.recipe import Recipe
from headway.train.preemption import Preemption
from headway.train.state import State
from headway.train.transfer import Transfer


class Evaluator:
    """Evaluates on text that is never trained on."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, state: State, transfer: Transfer, agreement: dist.ProcessGroup
    ) -> None:
        self.state, self.transfer, self.agreement = state, transfer, agreement
        self.micro_batches = dataset.held_out(recipe.evaluation.tokens)

    @torch.no_grad()
    def loss(self, preemption: Preemption) -> tuple[float, int]:
        """Mean held-out loss [nats per token], and how urgently some rank was asked to stop meanwhile. Collective.

        If that is not 0, the evaluation was broken off and the loss is NaN.
        """
        try:
            losses, stop = self._losses(preemption)
        finally:
            for module in self.state.model.modules():  # without a backward pass FSDP leaves parameters gathered
                if isinstance(module, FSDPModule):
                    module.reshard()
        if stop:
            return math.nan, stop
        total = losses.cpu()
        dist.all_reduce(total, group=self.agreement)
        return float(total.sum()) / sum(batch.targets.size for batch in self.micro_batches), 0

    def _losses(self, preemption: Preemption) -> tuple[torch.Tensor, int]:
        """Summed loss of each micro-batch that this rank computed, zero for the others; and the wish to stop."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        count = len(self.micro_batches)
        losses = torch.zeros(count, dtype=torch.float64, device=self.transfer.device)
        for first in range(0, count, ranks):
            if stop := self._asked(preemption):
                return losses, stop
            index = first + rank
            batch = self.transfer(self.micro_batches[index % count])
            batch.arrive()
            loss = self.state.model(batch.inputs, batch.targets, batch.documents)
            if index < count:
                losses[index] = loss
        return losses, 0

    def _asked(self, preemption: Preemption) -> int:
        asked = torch.tensor([preemption.level], dtype=torch.int64)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self.agreement)
        return int(asked.item())
