"""Where the time of a run went: every second of every rank of every attempt, booked to one phase.

The ledger accounts up to an attempt's last commit or its end. What a killed or failed attempt did after that is
`lost`: the next one does it again. Closing the books of an attempt that ended in order is `drain`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.store.curve import opening
from headway.store.record import PHASES, Row, ledger
from headway.store.run import Run
from headway.store.standing import Outcome, Try, standing

ORDERLY = ("done", "preempted")
"""Outcomes of attempts that committed all they had done."""


@dataclass(frozen=True)
class Line:
    """The time of one rank in one attempt."""

    attempt: int
    rank: int
    outcome: Outcome
    began: float
    """Seconds since 1970."""
    ended: float
    """Seconds since 1970; while the attempt runs, when its last checkpoint was begun."""
    phases: Mapping[str, float]
    """Seconds, for every phase."""

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
class Account:
    """The time of a whole run."""

    lines: list[Line]
    running: int | None
    """The attempt that is under way: its lines end at its last checkpoint, or are missing before the first."""

    @property
    def phases(self) -> dict[str, float]:
        """Rank-seconds by phase, over all attempts."""
        return {phase: sum(line.phases[phase] for line in self.lines) for phase in PHASES}

    @property
    def total(self) -> float:
        """Rank-seconds booked."""
        return sum(self.phases.values())

    @property
    def goodput(self) -> float:
        """Share of all rank-time that was spent on steps which count; 0 if there is none yet."""
        return self.phases["step"] / self.total if self.total else 0.0

    @property
    def elapsed(self) -> float:
        """Wall clock from the first attempt's beginning to the last one's end [s]."""
        if not self.lines:
            return 0.0
        return max(line.ended for line in self.lines) - min(line.began for line in self.lines)

    @property
    def idle(self) -> float:
        """Wall clock between attempts, when nobody ran [s]."""
        idle, until = 0.0, float("inf")
        for line in sorted(self.lines, key=lambda line: line.began):
            idle += max(0.0, line.began - until)
            until = line.ended if until == float("inf") else max(until, line.ended)
        return idle


def account(run: Run, tries: Sequence[Try] | None = None) -> Account:
    """Account for all time of `run`, whose attempts are looked up if they are not known."""
    tries = standing(run).tries if tries is None else tries
    running = next((each.number for each in tries if each.outcome == "running"), None)
    return Account([line for each in tries for line in lines(run, each)], running)


def lines(run: Run, attempt: Try) -> list[Line]:
    """The time of each rank of one attempt."""
    rows = ledger(run.store, run.name, attempt.number)
    if rows:
        return [_closed(row, attempt) for row in rows]
    if attempt.outcome == "running":
        return []
    nothing = dict.fromkeys(PHASES, 0.0) | {_tail(attempt): attempt.seen - attempt.began}
    return [
        Line(attempt.number, rank, attempt.outcome, attempt.began, attempt.seen, nothing)
        for rank in range(_ranks(run, attempt.number))
    ]


def _closed(row: Row, attempt: Try) -> Line:
    """A rank's line: its ledger row, and what came after it was written."""
    phases = dict.fromkeys(PHASES, 0.0) | dict(row.phases)
    ended = row.until if attempt.outcome == "running" else max(row.until, attempt.seen)
    phases[_tail(attempt)] += ended - row.until
    return Line(row.attempt, row.rank, attempt.outcome, row.started, ended, phases)


def _tail(attempt: Try) -> str:
    """What the time between an attempt's last row and its end counts as."""
    return "drain" if attempt.outcome in ORDERLY else "lost"


def _ranks(run: Run, attempt: int) -> int:
    """How many ranks an attempt had, by what it said when it began."""
    claims = (event for event in opening(run.store, run.name, attempt) if event.get("event") == "attempt.claimed")
    return max(1, int(next(claims, {}).get("ranks", 1)))
