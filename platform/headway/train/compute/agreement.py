"""What the ranks agree on after each batch: whether to stop, whether to save, and how long each of them took.

It costs no collective of its own: the losses of the batch travel in the same all-reduce.
"""

from dataclasses import astuple, dataclass

import torch
import torch.distributed as dist

from headway.train.host.preemption import IMMEDIATE, STOP
from headway.train.straggler import FIELDS, StepTiming


@dataclass(frozen=True)
class Proposal:
    """What one rank brings to the agreement."""

    timing: StepTiming
    stop: int = 0
    """Its stop level: 0, STOP or IMMEDIATE."""
    save: bool = False
    """Whether it wants to save."""


@dataclass(frozen=True)
class Agreement:
    """The same on every rank."""

    stop: int
    """Highest stop level of any rank: 0, STOP or IMMEDIATE."""
    save: bool
    """Whether any rank wants to save."""
    timings: tuple[StepTiming, ...]
    """Times of the step, by rank."""


def agree(losses: torch.Tensor, proposal: Proposal, group: dist.ProcessGroup) -> tuple[torch.Tensor, Agreement]:
    """The sum of all ranks' `losses` (float64, on the CPU), and their agreement. Collective over a gloo group."""
    timings = torch.zeros(group.size(), FIELDS, dtype=torch.float64)
    timings[group.rank()] = torch.tensor(astuple(proposal.timing))
    flags = torch.tensor([proposal.stop >= STOP, proposal.stop >= IMMEDIATE, proposal.save], dtype=torch.float64)
    shared = torch.cat([losses.flatten(), timings.flatten(), flags])
    dist.all_reduce(shared, group=group)
    summed, rows, (stops, immediates, saves) = torch.split(shared, [losses.numel(), timings.numel(), len(flags)])
    return summed.view_as(losses), Agreement(
        stop=IMMEDIATE if immediates else STOP if stops else 0,
        save=bool(saves > 0),
        timings=tuple(StepTiming(*row) for row in rows.view_as(timings).tolist()),
    )
