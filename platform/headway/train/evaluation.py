"""Held-out loss: always the same micro-batches, split over the ranks and summed in a fixed order."""

import math

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from headway.data import Dataset
from headway.recipe import Recipe
from headway.train.compute.state import State
from headway.train.compute.transfer import Transfer
from headway.train.host.preemption import Preemption


class Evaluator:
    """Computes the loss on held-out text, which is never trained on."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, state: State, transfer: Transfer, group: dist.ProcessGroup
    ) -> None:
        """`group` is a gloo group, for sums and stop requests."""
        self.state, self.transfer, self.group = state, transfer, group
        self.micro_batches = dataset.held_out_batches(recipe.evaluation.tokens)

    @torch.no_grad()
    def loss(self, preemption: Preemption) -> tuple[float, int]:
        """Mean held-out loss [nats per token], and the highest stop level of any rank. Collective.

        A stop level above 0 means that the evaluation was interrupted; the loss is then NaN.
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
        dist.all_reduce(total, group=self.group)
        return float(total.sum()) / sum(batch.targets.size for batch in self.micro_batches), 0

    def _losses(self, preemption: Preemption) -> tuple[torch.Tensor, int]:
        """Summed loss of each micro-batch that this rank computed, 0 for the others; and the stop level."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        count = len(self.micro_batches)
        losses = torch.zeros(count, dtype=torch.float64, device=self.transfer.device)
        for first in range(0, count, ranks):
            if stop := self._stop_level(preemption):
                return losses, stop
            index = first + rank
            batch = self.transfer(self.micro_batches[index % count])
            batch.wait()
            loss = self.state.model(batch.inputs, batch.targets, batch.documents)
            if index < count:
                losses[index] = loss
        return losses, 0

    def _stop_level(self, preemption: Preemption) -> int:
        level = torch.tensor([preemption.level], dtype=torch.int64)
        dist.all_reduce(level, op=dist.ReduceOp.MAX, group=self.group)
        return int(level.item())
