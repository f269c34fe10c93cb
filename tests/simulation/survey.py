"""Many interleavings, one after the other: what they broke, and what they went through."""

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
)  # fmt: skip
"""What a survey must go through to mean anything: entries, answers, what befell actors and requests."""
SHARE = 50
"""Interleavings that a process is given at once."""


@dataclass
class Survey:
    """What came of many interleavings."""

    interleavings: int = 0
    seconds: float = 0.0
    violations: dict[int, str] = field(default_factory=dict)
    """By seed."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def missed(self) -> list[str]:
        """What should have happened, and never did."""
        return [each for each in EXERCISED if not self.counts[each]]

    def add(self, outcome: Outcome) -> None:
        """Take in one of them."""
        self.interleavings += 1
        self.counts += outcome.counts
        if outcome.violation:
            self.violations[outcome.seed] = outcome.violation

    def summary(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        rate = round(self.interleavings / self.seconds, 1) if self.seconds else None
        return {**asdict(self), "per_second": rate, "missed": self.missed, "counts": dict(self.counts.most_common())}


def survey(seeds: Iterable[int], *, processes: int = 1, tell: Callable[[Survey], None] = lambda _: None) -> Survey:
    """Play all seeds, in so many processes; `tell` is told after each."""
    began, found = time.monotonic(), Survey()
    if processes == 1:
        _gather(found, map(play, seeds), tell)
    else:
        with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
            _gather(found, pool.map(play, seeds, chunksize=SHARE), tell)
    found.seconds = round(time.monotonic() - began, 3)
    return found


def _gather(found: Survey, outcomes: Iterable[Outcome], tell: Callable[[Survey], None]) -> None:
    for outcome in outcomes:
        found.add(outcome)
        tell(found)
