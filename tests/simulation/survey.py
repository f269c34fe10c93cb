"""Plays many interleavings and sums up their violations and events."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any

from tests.simulation.interleaving import Outcome, play

EXERCISED = (
    "claimed", "committed", "decided", "pruned", "done", "preempted", "failed", "pack",
    "FencedError", "HeldError", "crash", "pause", "begun", "resumed",
    "read", "read while it was given up", "damage found", "verified", "garbage object", "pruned object", "pack damaged",
    "read failed", "damaged read", "late listing", "failed before", "answer lost", "under way", "landed late", "echo",
    "found itself", "refused", "untidy", "reader failed", "collector failed", "launcher gave up",
    "operator done", "operator gave up",
)  # fmt: skip
"""Counters that a meaningful survey must have above zero."""
CHUNK = 50
"""Interleavings per task of a worker process."""


@dataclass
class Survey:
    """Results of many interleavings."""

    interleavings: int = 0
    seconds: float = 0.0
    violations: dict[int, str] = field(default_factory=dict)
    """Violations by seed."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def missed(self) -> list[str]:
        """Names in `EXERCISED` that never happened."""
        return [each for each in EXERCISED if not self.counts[each]]

    def add(self, outcome: Outcome) -> None:
        """Add one result."""
        self.interleavings += 1
        self.counts += outcome.counts
        if outcome.violation:
            self.violations[outcome.seed] = outcome.violation

    def summary(self) -> dict[str, Any]:
        """The results as plain data, for JSON."""
        rate = round(self.interleavings / self.seconds, 1) if self.seconds else None
        return {**asdict(self), "per_second": rate, "missed": self.missed, "counts": dict(self.counts.most_common())}


def survey(seeds: Iterable[int], *, processes: int = 1, report: Callable[[Survey], None] = lambda _: None) -> Survey:
    """Play all seeds in `processes` processes; calls `report` after each."""
    start, result = time.monotonic(), Survey()
    if processes == 1:
        _gather(result, map(play, seeds), report)
    else:
        with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
            _gather(result, pool.map(play, seeds, chunksize=CHUNK), report)
    result.seconds = round(time.monotonic() - start, 3)
    return result


def _gather(result: Survey, outcomes: Iterable[Outcome], report: Callable[[Survey], None]) -> None:
    for outcome in outcomes:
        result.add(outcome)
        report(result)
