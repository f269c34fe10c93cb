"""One optimizer step: the batch's lanes are computed, their gradients summed, and then applied or dropped."""

import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from headway.recipe import Recipe
from headway.train.collective_timer import CollectiveTimer
from headway.train.heartbeat import HeartbeatWriter
from headway.train.norm import clip, fast_norm, ordered_norm
from headway.train.preemption import IMMEDIATE, STOP, Preemption
from headway.train.reduction import OrderedSum
from headway.train.schedule import learning_rate
from headway.train.state import State
from headway.train.straggler import FIELDS, StepTiming
from headway.train.transfer import DeviceBatch


@dataclass(frozen=True)
class Gradient:
    """What a batch says, before anything is done about it. The same on every rank."""

    loss: float
    """Mean over the batch [nats per token]."""
    norm: float
    """L2 norm of the whole gradient, before clipping."""
    stop: int
    """How urgently some rank was asked to stop: 0, STOP or HURRY."""
    save: bool
    """Whether rank 0 wishes to save."""
    paces: tuple[StepTiming, ...]
    """What each rank took for it, by rank."""


def lanes_of(rank: int, ranks: int, lanes: int) -> list[int]:
    """The lanes that a rank computes, one a round; past the last lane it repeats one, which is not counted."""
    return [turn * ranks + rank for turn in range(-(-lanes // ranks))]


class Step:
    """Computes and applies gradients for one rank."""

    def __init__(
        self, recipe: Recipe, state: State, device: torch.device, agreement: dist.ProcessGroup, pulse: HeartbeatWriter
    ) -> None:
        """`agreement` is a gloo group, over which the ranks compare losses and flags; `pulse` counts micro-batches."""
        self.recipe, self.state, self.device, self.agreement = recipe, state, device, agreement
        self.pulse = pulse
        assert isinstance(state.model, FSDPModule)
        self.sharded: FSDPModule = state.model
        self.parameters = list(state.model.parameters())
        self.bitwise = recipe.train.determinism == "bitwise"
        self.waiting = CollectiveTimer(device)
        self.waiting.watch(state.model, reductions=not self.bitwise)
        self.sum = OrderedSum(state.model, self.waiting) if self.bitwise else None
        self._applied = 0.0
        """How long the last update of the parameters took [s]: the others wait for it in the next step."""

    def gradient(
        self,
        lanes: Sequence[Sequence[DeviceBatch]],
        preemption: Preemption,
        *,
        save: bool = False,
        fetched: float = 0.0,
    ) -> Gradient:
        """Compute the batch's gradient from this rank's `lanes`; whether to stop is asked when that is done.

        `save`: this rank wishes to save. `fetched`: how long it waited for the lanes [s].
        """
        self.waiting.take()
        began = time.perf_counter()
        plan = self.recipe.train
        ranks, rank = dist.get_world_size(), dist.get_rank()
        losses = torch.zeros(plan.lanes, plan.lane_micro_batches, dtype=torch.float64, device=self.device)
        if self.sum:
            self.sum.begin()
        for turn, lane in enumerate(lanes):
            number = turn * ranks + rank
            if self.sum:
                self.sum.begin_round(min(ranks, plan.lanes - turn * ranks))
            for index, micro_batch in enumerate(lane):
                ends_lane, last_turn = index == len(lane) - 1, turn == len(lanes) - 1
                self.sharded.set_requires_gradient_sync(ends_lane and (self.bitwise or last_turn))
                self.sharded.set_reshard_after_backward(self.recipe.machine.reshard or (ends_lane and last_turn))
                counts = number < plan.lanes
                loss = self._backward(micro_batch, scale=1.0 / plan.batch_tokens if counts else 0.0)
                if counts:
                    losses[number, index] = loss
        losses = losses.cpu()  # a GPU is done here
        took, waited = time.perf_counter() - began, self.waiting.take()
        pace = StepTiming(fetched, fetched + self._applied + max(0.0, took - waited), waited)
        return self._agree(losses, preemption.level, pace, save=save)

    def apply(self, tokens: int, gradient: Gradient) -> float:
        """Clip, and take the optimizer step of the batch that starts at `tokens`; returns the learning rate."""
        began = time.perf_counter()
        rate = learning_rate(self.recipe, tokens)
        clip(self._gradients(), gradient.norm, self.recipe.train.optimizer.clip_norm)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.state.optimizer.step()
        self.state.updated(gradient.loss)
        self.drop()
        self._applied = time.perf_counter() - began
        return rate

    def drop(self) -> None:
        """Forget the gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    def _backward(self, batch: DeviceBatch, scale: float) -> torch.Tensor:
        batch.arrive()
        loss: torch.Tensor = self.state.model(batch.inputs, batch.targets, batch.documents)
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        self.pulse.advance()
        return loss.detach()

    def _agree(self, losses: torch.Tensor, stop: int, pace: StepTiming, *, save: bool) -> Gradient:
        """Bring the losses and paces of all ranks together, in order, and the wishes to stop or save."""
        paces = torch.zeros(dist.get_world_size(), FIELDS, dtype=torch.float64)
        paces[dist.get_rank()] = torch.tensor(astuple(pace))
        wishes = torch.tensor([stop >= STOP, stop >= IMMEDIATE, save], dtype=torch.float64)
        shared = torch.cat([losses.flatten(), paces.flatten(), wishes])
        dist.all_reduce(shared, group=self.agreement)
        summed, took, (asked, hurried, wished) = torch.split(shared, [losses.numel(), paces.numel(), len(wishes)])
        gradients = self._gradients()
        return Gradient(
            loss=float(summed.sum()) / self.recipe.train.batch_tokens,
            norm=ordered_norm(gradients) if self.bitwise else fast_norm(gradients),
            stop=IMMEDIATE if hurried else STOP if asked else 0,
            save=bool(wished > 0),
            paces=tuple(StepTiming(*row) for row in took.view_as(paces).tolist()),
        )

    def _gradients(self) -> list[DTensor]:
        return [p.grad for p in self.parameters if isinstance(p.grad, DTensor)]
