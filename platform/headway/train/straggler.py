"""Finding the rank that is slow: all others wait for it, in every step, and a run is as fast as that rank.

A step takes equally long on every rank, because each waits for the last one again and again. So what is compared is a
rank's *own* time: its step without what it waited in collectives, measured where it meets the others (`waiting`).
Processor time would not tell: it stands still while another process has the core, while a process is stopped, and
while it reads from a slow disk, which is what makes a rank slow. Nor would the time that a rank arrives at the
agreement, for the collectives before it have made all equal.

The ranks learn each other's times with the losses of the batch: no collective is made for it. On a GPU own time is
that of the host but for the collectives' time on the device, in which others' work may go on: the less a collective
overlaps with work, the better it tells.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

WARM_UP = 2
"""Steps of an attempt that say nothing: code is compiled, memory is got for the first time."""
WINDOW = 16
"""Steps that are looked at together; with the warm-up less than 20, in which a slow rank is to be named."""
FACTOR = 1.5
"""As much more time than the others a slow rank takes for itself. Undisturbed ranks on two cores that many processes
share came to 1.25 (tests and builds beside a run of 400 steps; docs/benchmarks.md)."""
STEADY = 1.25
"""And as much without its worst step of the window: a pause that comes once makes no rank slow."""
COST = 1.1
"""And as much longer a step takes because of it: where collectives hide a difference, it costs nobody anything."""
WORSE = 1.5
"""As much slower than the one that was named another rank has to be, to be named in its place."""
RECOVERED = 1.2
"""Below this factor a rank that was slow is slow no more; if it becomes so again, that is said again."""


@dataclass(frozen=True)
class StepTiming:
    """What a step took on one rank [s]."""

    data: float
    """Until its batch was there."""
    own: float
    """By itself, the time until its batch was there included."""
    waited: float
    """For the others, in collectives, and for what these carry."""


FIELDS = 3
"""Of a pace."""


@dataclass(frozen=True)
class SlowRank:
    """A rank that keeps the others waiting."""

    rank: int
    host: str
    factor: float
    """Its own time by that of the others, the median of theirs."""
    cost: float
    """How much longer a step takes for all: a factor."""
    phase: str
    """Where it is slow: `data` or `step`."""


class StragglerDetector:
    """Watches the ranks of an attempt; the same on every rank, as their paces are."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """`hosts`: the machine of each rank."""
        self.hosts = hosts
        self.slow: SlowRank | None = None
        """The rank that keeps the others waiting at present, as it was when that was noticed."""
        self._left = WARM_UP
        self._steps: deque[Sequence[StepTiming]] = deque(maxlen=WINDOW)

    def look(self, paces: Sequence[StepTiming]) -> bool:
        """Take in what a step took on each rank; returns whether `slow` is another one now, or none any more."""
        if self._left or len(paces) < 2:
            self._left = max(0, self._left - 1)
            return False
        self._steps.append(paces)
        if len(self._steps) < WINDOW:
            return False
        own = _sums([[pace.own for pace in step] for step in self._steps])
        rank = max(range(len(own)), key=own.__getitem__)
        named = self.slow.rank if self.slow else None
        if named is not None and _factor(own, named) >= RECOVERED and own[rank] < WORSE * own[named]:
            return False  # several are slow, mostly all of one machine: the one that was named stands for them
        before, self.slow = self.slow, self._slow(rank, own)
        return self.slow != before

    def _slow(self, rank: int, own: Sequence[float]) -> SlowRank | None:
        """Whether `rank`, whose own time is the longest of `own`, is slow in the present window."""
        worst = max(range(WINDOW), key=lambda index: self._steps[index][rank].own)
        rest = _sums([[pace.own for pace in step] for index, step in enumerate(self._steps) if index != worst])
        transport = min(_sums([[pace.waited for pace in step] for step in self._steps]))
        usual = _others(own, rank)
        cost = (own[rank] + transport) / (usual + transport)
        factor = _factor(own, rank)
        if factor < FACTOR or _factor(rest, rank) < STEADY or cost < COST:
            return None
        data = _sums([[pace.data for pace in step] for step in self._steps])
        late = data[rank] - _others(data, rank)
        phase = "data" if late > (own[rank] - usual) / 2 else "step"
        return SlowRank(rank, self.hosts[rank], round(factor, 2), round(cost, 2), phase)


def _sums(steps: Sequence[Sequence[float]]) -> list[float]:
    """For each rank the sum over the steps."""
    return [sum(each) for each in zip(*steps, strict=True)]


def _others(sums: Sequence[float], rank: int) -> float:
    """What is usual among the ranks but `rank`."""
    return statistics.median(value for other, value in enumerate(sums) if other != rank)


def _factor(sums: Sequence[float], rank: int) -> float:
    """How many times as long as the others a rank takes."""
    return sums[rank] / max(_others(sums, rank), 1e-9)
