"""Where the time of a run went: every second of every rank of every attempt, booked to one phase.

The ledger accounts up to an attempt's last commit or its end. What a killed, failed or hurried attempt did after that
is `lost`: the next one does it again. So is what it did after a newer one had claimed the run. Closing the books of an
attempt that ended in order is `drain`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from headway.reports.status import AttemptStatus, Outcome, RunStatus, run_status
from headway.runs.ledger import LedgerRow, read_ledger
from headway.runs.run import Run
from headway.runs.run_log import opening_events
from headway.telemetry.phases import PHASES

ORDERLY = ("done", "preempted")
"""Outcomes of attempts that closed their books."""


@dataclass(frozen=True)
class RankTime:
    """The time of one rank in one attempt."""

    attempt: int
    rank: int
    outcome: Outcome
    began: float
    """When it was submitted, or launched without a queue [s since 1970]."""
    ended: float
    """Seconds since 1970; while the attempt runs, when its last checkpoint was begun."""
    phases: Mapping[str, float]
    """Seconds, for every phase."""
    fenced: float = math.inf
    """When a newer attempt claimed the run [s since 1970]."""

    @property
    def booked(self) -> float:
        """Sum over the phases [s]."""
        return sum(self.phases.values())

    @property
    def wall(self) -> float:
        """What the wall clock says [s]."""
        return self.ended - self.began

    @property
    def difference(self) -> float:
        """Seconds of wall clock that no phase accounts for: zero, or the books are wrong."""
        return self.wall - self.booked


@dataclass(frozen=True)
class TimeAccounting:
    """The time of a whole run."""

    lines: list[RankTime]
    running: int | None
    """The attempt that is under way: its lines end at its last checkpoint, or are missing before the first."""

    @property
    def attempts(self) -> int:
        """How many attempts there are lines of."""
        return len({line.attempt for line in self.lines})

    @property
    def phases(self) -> dict[str, float]:
        """Rank-seconds by phase, over all attempts."""
        return {phase: sum(line.phases[phase] for line in self.lines) for phase in PHASES}

    @property
    def total(self) -> float:
        """Rank-seconds booked."""
        return sum(self.phases.values())

    @property
    def held(self) -> float:
        """Rank-seconds for which there was a machine: all but the queue."""
        return self.total - self.phases["queue"]

    @property
    def goodput(self) -> float:
        """Share of the rank-time held that was spent on steps which count; 0 if there is none yet.

        This is Runtime Goodput: time of forward progress, of the time in which the resources are there (Google Cloud,
        "Introducing ML Productivity Goodput", 2024).
        """
        return self.phases["step"] / self.held if self.held else 0.0


def account_time(run: Run, stands: RunStatus | None = None, since: int = 0) -> TimeAccounting:
    """Account for all time of `run` in its attempts from `since` on; `stands`: where it stands, if that is known."""
    stands = stands or run_status(run)
    running = next((each.number for each in stands.attempts if each.outcome == "running"), None)
    lines: list[RankTime] = []
    free = -math.inf  # when the attempts before had all ended or been fenced
    for attempt, told, follower in zip_longest(stands.attempts, stands.history.attempts, stands.attempts[1:]):
        saved = told.ended is not None and told.ended.tokens <= attempt.committed
        tail = "drain" if attempt.outcome in ORDERLY and saved else "lost"
        if attempt.number < since:
            continue
        found = _lines(run, attempt, tail, fenced=follower.began if follower else math.inf)
        lines += (_queued_after(free, line) for line in found)
        free = max([free, *(min(line.ended, line.fenced) for line in found)])
    return TimeAccounting(lines, running)


def less(phases: Mapping[str, float], seconds: float, order: Iterable[str] = PHASES) -> dict[str, float]:
    """`phases` without so many `seconds`, taken off one phase after the other in `order`: that of time, by default."""
    left = dict(phases)
    for phase in order:
        taken = min(left[phase], max(0.0, seconds))
        left[phase] -= taken
        seconds -= taken
    return left


def _lines(run: Run, attempt: AttemptStatus, tail: str, fenced: float) -> list[RankTime]:
    """The lines of an attempt; `tail` is what the time between its last row and its end counts as."""
    rows = read_ledger(run.store, run.name, attempt.number)
    if rows:
        return [_closed(row, attempt, tail, fenced) for row in rows]
    if attempt.outcome == "running":
        return []
    nothing = dict.fromkeys(PHASES, 0.0) | {tail: attempt.seen - attempt.began}
    return [
        RankTime(attempt.number, rank, attempt.outcome, attempt.began, attempt.seen, nothing, fenced)
        for rank in range(_ranks(run, attempt.number))
    ]


def _closed(row: LedgerRow, attempt: AttemptStatus, tail: str, fenced: float) -> RankTime:
    """A rank's line: its ledger row, what of that was in vain, and what came after it was written."""
    phases = dict.fromkeys(PHASES, 0.0) | dict(row.phases)
    if attempt.outcome == "killed":
        kept = less(phases, row.until - fenced, [phase for phase in reversed(PHASES) if phase != "lost"])
        kept["lost"] += sum(phases.values()) - sum(kept.values())
        phases = kept
    ended = row.until if attempt.outcome == "running" else max(row.until, attempt.seen)
    phases[tail] += ended - row.until
    return RankTime(row.attempt, row.rank, attempt.outcome, row.started, ended, phases, fenced)


def _queued_after(moment: float, line: RankTime) -> RankTime:
    """A line without the time in which its job was in the queue while an attempt before had the run."""
    waited = min(line.phases["queue"], max(0.0, moment - line.began))
    return replace(line, began=line.began + waited, phases=less(line.phases, waited))


def _ranks(run: Run, attempt: int) -> int:
    """How many ranks an attempt had, by what it said when it began."""
    claims = (
        event for event in opening_events(run.store, run.name, attempt) if event.get("event") == "attempt.claimed"
    )
    return max(1, int(next(claims, {}).get("ranks", 1)))
