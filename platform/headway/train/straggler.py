"""Detects a slow rank. All others wait for it in every step, so a run is as fast as its slowest rank.

A step takes equally long on every rank, because each collective waits for the slowest. So the detector compares each
rank's *own* time: the step without the time in collectives (`collective_timer`). CPU time would not do: it stands still
while another process has the core, while the process is stopped and while it reads from a slow disk, which are the
causes of a slow rank. The time at which a rank reaches the last collective would not do either, because the collectives
before it make all ranks equal.

The ranks exchange their times with the losses of the batch, without a collective of their own. On a GPU, own time is
host time without the collectives' time on the device; it is less exact where collectives overlap with compute.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from headway.events.training_events import RankSlow

WARM_UP = 2
"""Steps at the start of an attempt that are ignored: they compile code and allocate memory."""
WINDOW = 16
"""Steps that are compared together. With the warm-up fewer than 20, within which a slow rank must be named."""
FACTOR = 1.5
"""Minimum ratio of a slow rank's own time to that of the others. Undisturbed ranks on two cores that many processes
share came to 1.25 (tests and builds beside a run of 400 steps; docs/benchmarks.md)."""
STEADY = 1.25
"""Minimum of that ratio without the rank's worst step in the window, so that one long pause makes no rank slow."""
COST = 1.1
"""Minimum ratio by which the slow rank lengthens the step. Where collectives hide the difference, it costs nothing."""
WORSE = 1.5
"""Ratio by which another rank must exceed the current straggler to replace it."""
RECOVERED = 1.2
"""Ratio to the others below which the current straggler counts as recovered."""


@dataclass(frozen=True)
class StepTiming:
    """Times of one step on one rank [s]."""

    data: float
    """Waiting for the batch."""
    own: float
    """The rank's own work, `data` included."""
    collectives: float
    """In collectives: waiting for other ranks, and transport."""


FIELDS = 3
"""Number of fields of a `StepTiming`."""


class StragglerDetector:
    """Finds the straggler of an attempt. All ranks have the same timings, so all find the same one."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """`hosts`: host of each rank."""
        self.hosts = hosts
        self.slow: RankSlow | None = None
        """The current straggler, with its figures from when it was detected."""
        self._warm_up = WARM_UP
        """Steps still to ignore."""
        self._steps: deque[Sequence[StepTiming]] = deque(maxlen=WINDOW)

    def update(self, timings: Sequence[StepTiming]) -> bool:
        """Add the timings of a step, one per rank; returns whether `slow` has changed."""
        if self._warm_up or len(timings) < 2:
            self._warm_up = max(0, self._warm_up - 1)
            return False
        self._steps.append(timings)
        if len(self._steps) < WINDOW:
            return False
        own = _sums([[timing.own for timing in step] for step in self._steps])
        rank = max(range(len(own)), key=own.__getitem__)
        current = self.slow.rank if self.slow else None
        if current is not None and _factor(own, current) >= RECOVERED and own[rank] < WORSE * own[current]:
            return False  # several ranks are slow, mostly all of one node: the current one stands for them
        before, self.slow = self.slow, self._slow(rank, own)
        return self.slow != before

    def _slow(self, rank: int, own: Sequence[float]) -> RankSlow | None:
        """`rank`, which has the longest time of `own`, if it is slow in the present window; else None."""
        worst = max(range(WINDOW), key=lambda index: self._steps[index][rank].own)
        rest = _sums([[timing.own for timing in step] for index, step in enumerate(self._steps) if index != worst])
        transport = min(_sums([[timing.collectives for timing in step] for step in self._steps]))
        usual = _median_of_others(own, rank)
        cost = (own[rank] + transport) / (usual + transport)
        factor = _factor(own, rank)
        if factor < FACTOR or _factor(rest, rank) < STEADY or cost < COST:
            return None
        data = _sums([[timing.data for timing in step] for step in self._steps])
        late = data[rank] - _median_of_others(data, rank)
        phase = "data" if late > (own[rank] - usual) / 2 else "step"
        return RankSlow(rank=rank, host=self.hosts[rank], factor=round(factor, 2), cost=round(cost, 2), phase=phase)


def _sums(steps: Sequence[Sequence[float]]) -> list[float]:
    """Sum over the steps, per rank."""
    return [sum(each) for each in zip(*steps, strict=True)]


def _median_of_others(sums: Sequence[float], rank: int) -> float:
    return statistics.median(value for other, value in enumerate(sums) if other != rank)


def _factor(sums: Sequence[float], rank: int) -> float:
    """Ratio of the rank's time to the median of the others'."""
    return sums[rank] / max(_median_of_others(sums, rank), 1e-9)
