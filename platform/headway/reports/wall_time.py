"""Wall-clock time of a run: the time of its ranks, averaged over the ranks, and the time between attempts.

Each moment belongs to at most one attempt. Where two overlap, the time before the newer one's claim belongs to the
older one, and the time after it to the newer one. So the averaged rank-time and `between` add up to the time from the
first submission to the last end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from headway.reports.time_accounting import TimeAccounting, subtract_time
from headway.telemetry.phases import PHASES


@dataclass(frozen=True)
class WallTime:
    """The wall-clock time of a run by phase."""

    phases: Mapping[str, float]
    """Time in each phase [s]: the mean over the ranks of an attempt, summed over the attempts."""
    between: float
    """Time without an attempt, or before all of its ranks had started [s, mean over the ranks]."""
    elapsed: float
    """Time from the first submission, or launch without a queue, to the last end [s]."""

    @property
    def sum(self) -> float:
        """Sum of the phases and `between` [s]."""
        return sum(self.phases.values()) + self.between

    @property
    def difference(self) -> float:
        """Elapsed time that neither a phase nor `between` accounts for [s]; nonzero means an accounting error."""
        return self.elapsed - self.sum

    @property
    def goodput(self) -> float:
        """Share of the elapsed time, with queue and `between`, that was spent on steps that count; 0 if there is none.

        This is the Effective Training Time Ratio: productive runtime relative to the available wall-clock time of a job
        run with all its restarts, queued or not (Kokolis et al., "Revisiting Reliability in Large-Scale Machine
        Learning Research Clusters", HPCA 2025).
        """
        return self.phases["step"] / self.elapsed if self.elapsed else 0.0


def wall_time(accounting: TimeAccounting) -> WallTime:
    """The wall-clock time of a run, from its time accounting."""
    phases, covered = dict.fromkeys(PHASES, 0.0), 0.0
    free = -math.inf  # when all earlier attempts had ended or been fenced
    for _, group in groupby(accounting.rank_times, key=lambda time: time.attempt):
        times, earlier_end = list(group), free
        for time in times:
            start = max(time.started, earlier_end)
            end = max(start, min(time.ended, time.fenced_at))
            own = subtract_time(time.phases, start - time.started)
            own = subtract_time(own, time.ended - end, reversed(PHASES))
            for phase, seconds in own.items():
                phases[phase] += seconds / len(times)
            covered += (end - start) / len(times)
            free = max(free, end)
    elapsed = free - min(time.started for time in accounting.rank_times) if accounting.rank_times else 0.0
    return WallTime(phases, elapsed - covered, elapsed)
