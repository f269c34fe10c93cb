"""Time accounting of a run: every second of every rank of every attempt belongs to one phase.

The ledger covers an attempt up to its last commit or its end. What a killed, failed or hurried attempt did after that
is `lost`, since the next one does it again. So is what it did after a newer attempt had claimed the run. The time that
an orderly attempt takes after its last ledger row is `drain`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from headway.events.training_events import AttemptClaimed
from headway.reports.status import AttemptStatus, Outcome, RunStatus, run_status
from headway.runs.ledger import LedgerRow, read_ledger
from headway.runs.run import Run
from headway.runs.run_log import opening_lines
from headway.telemetry.phases import PHASES

ORDERLY = ("done", "preempted")
"""Outcomes of attempts that wrote their ledger at the end."""
MAX_RANKS = 65_536
"""Bound of the ranks that a log may claim: each is a row of the report."""


@dataclass(frozen=True)
class RankTime:
    """The time of one rank in one attempt."""

    attempt: int
    rank: int
    outcome: Outcome
    started: float
    """Time of the submission, or of the launch without a queue [s since 1970]."""
    ended: float
    """Time of the end; of the last checkpoint's start while the attempt runs [s since 1970]."""
    phases: Mapping[str, float]
    """Time in each phase [s]."""
    fenced_at: float = math.inf
    """Time of the next attempt's claim [s since 1970]."""

    @property
    def accounted(self) -> float:
        """Time in all phases together [s]."""
        return sum(self.phases.values())

    @property
    def elapsed(self) -> float:
        """Elapsed time by the wall clock [s]."""
        return self.ended - self.started

    @property
    def difference(self) -> float:
        """Elapsed time that no phase accounts for [s]; nonzero means an accounting error."""
        return self.elapsed - self.accounted


@dataclass(frozen=True)
class TimeAccounting:
    """The time of a run, by rank and attempt."""

    rank_times: list[RankTime]
    running_attempt: int | None
    """The attempt that runs now. Its times end at its last checkpoint, and are missing before the first."""

    @property
    def attempts(self) -> int:
        """Number of attempts with accounted time."""
        return len({each.attempt for each in self.rank_times})

    @property
    def phases(self) -> dict[str, float]:
        """Rank-seconds by phase, over all attempts."""
        return {phase: sum(each.phases[phase] for each in self.rank_times) for phase in PHASES}

    @property
    def total(self) -> float:
        """Rank-seconds in all phases."""
        return sum(self.phases.values())

    @property
    def allocated(self) -> float:
        """Rank-seconds with allocated nodes: all phases but the queue."""
        return self.total - self.phases["queue"]

    @property
    def goodput(self) -> float:
        """Share of the allocated rank-time that was spent on steps that count; 0 if there is none yet.

        This is Runtime Goodput: time of forward progress, relative to the time in which the resources are available
        (Google Cloud, "Introducing ML Productivity Goodput", 2024).
        """
        return self.phases["step"] / self.allocated if self.allocated else 0.0


def account_time(run: Run, status: RunStatus | None = None, first_attempt: int = 0) -> TimeAccounting:
    """Account for the time of `run` from `first_attempt` on. Reads the status unless the caller passes it."""
    status = status or run_status(run)
    running = next((each.number for each in status.attempts if each.outcome == "running"), None)
    rank_times: list[RankTime] = []
    free = -math.inf  # when all earlier attempts had ended or been fenced
    for attempt, past, follower in zip_longest(status.attempts, status.history.attempts, status.attempts[1:]):
        saved = past.end is not None and past.end.tokens <= attempt.tokens_committed
        tail = "drain" if attempt.outcome in ORDERLY and saved else "lost"
        if attempt.number < first_attempt:
            continue
        own = _rank_times(run, attempt, tail, fenced_at=follower.started if follower else math.inf)
        rank_times += (_queued_after(free, each) for each in own)
        free = max([free, *(min(each.ended, each.fenced_at) for each in own)])
    return TimeAccounting(rank_times, running)


def subtract_time(phases: Mapping[str, float], seconds: float, order: Iterable[str] = PHASES) -> dict[str, float]:
    """Subtract `seconds` from `phases`, one phase after the other; by default in the order in which they happen."""
    remaining = dict(phases)
    for phase in order:
        amount = min(remaining[phase], max(0.0, seconds))
        remaining[phase] -= amount
        seconds -= amount
    return remaining


def _rank_times(run: Run, attempt: AttemptStatus, tail: str, fenced_at: float) -> list[RankTime]:
    """The times of an attempt's ranks. The time between the last ledger row and the end belongs to the phase `tail`."""
    rows = read_ledger(run.store, run.name, attempt.number)
    if rows:
        return [_rank_time(row, attempt, tail, fenced_at) for row in rows]
    if attempt.outcome == "running":
        return []
    phases = dict.fromkeys(PHASES, 0.0) | {tail: attempt.last_seen - attempt.started}
    return [
        RankTime(attempt.number, rank, attempt.outcome, attempt.started, attempt.last_seen, phases, fenced_at)
        for rank in range(_world_size(run, attempt.number))
    ]


def _rank_time(row: LedgerRow, attempt: AttemptStatus, tail: str, fenced_at: float) -> RankTime:
    """The time of one rank: its ledger row, with time after the fence moved to `lost`, and its tail."""
    phases = dict.fromkeys(PHASES, 0.0) | dict(row.phases)
    if attempt.outcome == "killed":
        useful = subtract_time(phases, row.until - fenced_at, [phase for phase in reversed(PHASES) if phase != "lost"])
        useful["lost"] += sum(phases.values()) - sum(useful.values())
        phases = useful
    ended = row.until if attempt.outcome == "running" else max(row.until, attempt.last_seen)
    phases[tail] += ended - row.until
    return RankTime(row.attempt, row.rank, attempt.outcome, row.started, ended, phases, fenced_at)


def _queued_after(moment: float, time: RankTime) -> RankTime:
    """Remove the queue time before `moment`, while an earlier attempt had the run."""
    overlap = min(time.phases["queue"], max(0.0, moment - time.started))
    return replace(time, started=time.started + overlap, phases=subtract_time(time.phases, overlap))


def _world_size(run: Run, attempt: int) -> int:
    """Number of an attempt's ranks, by its first log event; 1 if it has no log, or an incredible one."""
    events = (line.event for line in opening_lines(run.store, run.name, attempt))
    ranks = next((event.ranks for event in events if isinstance(event, AttemptClaimed)), 1)
    return ranks if 1 <= ranks <= MAX_RANKS else 1
