"""The wall clock of a run: its ranks' time averaged over the ranks, and the time between attempts.

A moment belongs to one attempt at most. Until a newer attempt claims the run it is the older one's: the newer one
only starts, beside it. From the claim on it is the newer one's: nothing that the older one still does counts. So the
averaged rank-time and `between` add up to the time from the first submission to the last end, however attempts overlap
and however many ranks each had.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from headway.reports.time_accounting import TimeAccounting, less
from headway.telemetry.phases import PHASES


@dataclass(frozen=True)
class WallTime:
    """The wall clock of a run, by what its ranks did."""

    phases: Mapping[str, float]
    """Seconds, for every phase: the mean over the ranks of each attempt, summed over the attempts."""
    between: float
    """When no attempt had the run, or not all of its ranks were there yet [s, as the mean over the ranks]."""
    elapsed: float
    """From the first submission, or launch without a queue, to the last end [s]."""

    @property
    def sum(self) -> float:
        """Of the phases and `between` [s]."""
        return sum(self.phases.values()) + self.between

    @property
    def difference(self) -> float:
        """Seconds that neither a phase nor `between` accounts for: zero, or the books are wrong."""
        return self.elapsed - self.sum

    @property
    def goodput(self) -> float:
        """Share of the wall clock that was spent on steps which count, the queue and `between` included; 0 if none is.

        This is the Effective Training Time Ratio: productive runtime by the wall clock available to a job run with all
        its restarts, in the queue or not (Kokolis et al., "Revisiting Reliability in Large-Scale Machine Learning
        Research Clusters", HPCA 2025).
        """
        return self.phases["step"] / self.elapsed if self.elapsed else 0.0


def wall_time(account: TimeAccounting) -> WallTime:
    """The wall clock of the run that `account` tells of."""
    phases, covered = dict.fromkeys(PHASES, 0.0), 0.0
    free = -math.inf
    for _, attempt in groupby(account.lines, key=lambda line: line.attempt):
        lines, since = list(attempt), free
        for line in lines:
            start = max(line.began, since)
            end = max(start, min(line.ended, line.fenced))
            own = less(less(line.phases, start - line.began), line.ended - end, reversed(PHASES))
            for phase, seconds in own.items():
                phases[phase] += seconds / len(lines)
            covered += (end - start) / len(lines)
            free = max(free, end)
    elapsed = free - min(line.began for line in account.lines) if account.lines else 0.0
    return WallTime(phases, elapsed - covered, elapsed)
