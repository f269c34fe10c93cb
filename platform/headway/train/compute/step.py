"""One training step: computes the gradient of each lane, sums them, then applies or drops the sum."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from headway.recipe import Recipe
from headway.train.compute.agreement import Agreement, Proposal, agree
from headway.train.compute.collective_timer import CollectiveTimer
from headway.train.compute.norm import clip, fast_norm, ordered_norm
from headway.train.compute.reduction import OrderedSum
from headway.train.compute.state import State
from headway.train.compute.transfer import DeviceBatch
from headway.train.host.preemption import Preemption
from headway.train.host.rank_heartbeat import HeartbeatWriter
from headway.train.schedule import learning_rate
from headway.train.straggler import StepTiming


@dataclass(frozen=True)
class Gradient:
    """The gradient of a batch, in figures; the same on every rank. The gradient itself is in the parameters."""

    loss: float
    """Mean over the batch [nats per token]."""
    norm: float
    """L2 norm of the whole gradient, before clipping."""


def lanes_of(rank: int, ranks: int, lanes: int) -> list[int]:
    """The lanes that a rank computes, one per round. Numbers past the last lane are padding, and do not count."""
    return [round_index * ranks + rank for round_index in range(-(-lanes // ranks))]


class Step:
    """Computes and applies gradients on one rank."""

    def __init__(
        self, recipe: Recipe, state: State, device: torch.device, group: dist.ProcessGroup, heartbeat: HeartbeatWriter
    ) -> None:
        """`group` is a gloo group, for losses and flags; `heartbeat` counts micro-batches."""
        self.recipe, self.state, self.device, self.group = recipe, state, device, group
        self.heartbeat = heartbeat
        assert isinstance(state.model, FSDPModule)
        self.sharded: FSDPModule = state.model
        self.parameters = list(state.model.parameters())
        self.bitwise = recipe.train.determinism == "bitwise"
        self.timer = CollectiveTimer(device)
        self.timer.instrument(state.model, reductions=not self.bitwise)
        self.sum = OrderedSum(state.model, self.timer) if self.bitwise else None
        self._apply_seconds = 0.0
        """Time of the last `apply` [s]. It counts as own time of the next step, where the others wait for it."""

    def forward_backward(
        self,
        lanes: Sequence[Sequence[DeviceBatch]],
        preemption: Preemption,
        *,
        save: bool = False,
        data_seconds: float = 0.0,
    ) -> tuple[Gradient, Agreement]:
        """Compute the gradient of a batch from this rank's `lanes`, and agree what to do next. Collective.

        `save`: whether this rank wants to save. `data_seconds`: how long it waited for `lanes` [s]. Stop requests are
        read at the end.
        """
        self.timer.collect()
        start = time.perf_counter()
        plan = self.recipe.train
        ranks, rank = dist.get_world_size(), dist.get_rank()
        losses = torch.zeros(plan.lanes, plan.lane_micro_batches, dtype=torch.float64, device=self.device)
        if self.sum:
            self.sum.reset()
        for round_index, lane in enumerate(lanes):
            number = round_index * ranks + rank
            if self.sum:
                self.sum.begin_round(min(ranks, plan.lanes - round_index * ranks))
            for index, micro_batch in enumerate(lane):
                ends_lane, last_round = index == len(lane) - 1, round_index == len(lanes) - 1
                self.sharded.set_requires_gradient_sync(ends_lane and (self.bitwise or last_round))
                self.sharded.set_reshard_after_backward(self.recipe.machine.reshard or (ends_lane and last_round))
                counts = number < plan.lanes
                loss = self._backward(micro_batch, scale=1.0 / plan.batch_tokens if counts else 0.0)
                if counts:
                    losses[number, index] = loss
        losses = losses.cpu()  # waits for the GPU
        seconds, collectives = time.perf_counter() - start, self.timer.collect()
        own = data_seconds + self._apply_seconds + max(0.0, seconds - collectives)
        proposal = Proposal(StepTiming(data_seconds, own, collectives), stop=preemption.level, save=save)
        losses, agreement = agree(losses, proposal, self.group)
        return Gradient(float(losses.sum()) / plan.batch_tokens, self._norm()), agreement

    def apply(self, tokens: int, gradient: Gradient) -> float:
        """Clip the gradient and take the optimizer step of the batch at `tokens`; returns the learning rate."""
        start = time.perf_counter()
        rate = learning_rate(self.recipe, tokens)
        clip(self._gradients(), gradient.norm, self.recipe.train.optimizer.clip_norm)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.state.optimizer.step()
        self.state.on_update(gradient.loss)
        self.drop()
        self._apply_seconds = time.perf_counter() - start
        return rate

    def drop(self) -> None:
        """Discard the gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    def _backward(self, batch: DeviceBatch, scale: float) -> torch.Tensor:
        batch.wait()
        loss: torch.Tensor = self.state.model(batch.inputs, batch.targets, batch.documents)
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        self.heartbeat.advance()
        return loss.detach()

    def _norm(self) -> float:
        gradients = self._gradients()
        return ordered_norm(gradients) if self.bitwise else fast_norm(gradients)

    def _gradients(self) -> list[DTensor]:
        return [p.grad for p in self.parameters if isinstance(p.grad, DTensor)]
