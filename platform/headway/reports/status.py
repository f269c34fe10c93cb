"""Where a run stands, for people: what state it is in, how far it is, and how each attempt at it went.

Derived from the journal and the heartbeat; a run whose process died without a word is told from one that runs.
"""

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from headway.errors import DamageError, MissingObject
from headway.runs.entries import Holder
from headway.runs.history import Attempt, History
from headway.runs.liveness import Heartbeat, read_heartbeat
from headway.runs.run import Run

State = Literal["new", "running", "done", "preempted", "failed", "killed"]
"""Of a run. `new`: nobody has claimed it yet. `killed`: it never said how it ended, and nobody is alive on it."""
Outcome = Literal["running", "done", "preempted", "failed", "killed", "rolled back"]
"""Of an attempt. `rolled back`: it decided to begin again from an earlier checkpoint, as the next attempt."""


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt, from its claim to its end or its last sign of life."""

    number: int
    holder: Holder
    began: float
    """When it claimed the run [s since 1970]."""
    seen: float
    """When it ended, or was last seen alive [s since 1970]."""
    outcome: Outcome
    reason: str
    before: int
    """Tokens of the newest checkpoint when it began."""
    committed: int
    """Tokens of its own last checkpoint, or `before`."""


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands at one moment."""

    run: str
    state: State
    budget: int | None
    """Tokens to train on; None if the recipe is damaged."""
    tokens: int
    """Trained so far: by the heartbeat while it runs, else what is committed."""
    attempts: list[AttemptStatus]
    heartbeat: Heartbeat | None
    history: History
    problem: str | None
    """What is wrong with the recipe."""

    @property
    def share(self) -> float | None:
        """Of the budget, 0 to 1."""
        return self.tokens / self.budget if self.budget else None

    @property
    def seen(self) -> float | None:
        """The last sign of life of anybody [s since 1970]."""
        return max((each.seen for each in self.attempts), default=None)


def run_status(run: Run) -> RunStatus:
    """Where `run` stands now."""
    history, beat = run.history(), read_heartbeat(run.store, run.name)
    running = bool(history.attempts) and run.alive(history.attempts[-1])
    tries = _tries(history, beat, running=running)
    budget, problem = None, None
    try:
        budget = run.recipe().train.tokens
    except MissingObject:
        problem = "its recipe is missing"
    except DamageError as error:
        problem = str(error)
    tokens = history.tokens
    if running and beat and beat.attempt == tries[-1].number:
        tokens = max(tokens, beat.tokens)
    return RunStatus(run.name, _state(tries), budget, tokens, tries, beat, history, problem)


def _state(tries: list[AttemptStatus]) -> State:
    if not tries:
        return "new"
    outcome = tries[-1].outcome
    return "killed" if outcome == "rolled back" else outcome


def _tries(history: History, beat: Heartbeat | None, *, running: bool) -> list[AttemptStatus]:
    tries: list[AttemptStatus] = []
    for attempt, follower in zip_longest(history.attempts, history.attempts[1:]):
        tries.append(
            AttemptStatus(
                number=attempt.number,
                holder=attempt.claim.holder,
                began=attempt.claim.time,
                seen=_last_sign(attempt, follower, beat),
                outcome=_outcome(attempt, running=running and follower is None, followed=follower is not None),
                reason=_reason(attempt),
                before=attempt.before,
                committed=attempt.commits[-1].tokens if attempt.commits else attempt.before,
            )
        )
    return tries


def _outcome(attempt: Attempt, *, running: bool, followed: bool) -> Outcome:
    if attempt.ended:
        return attempt.ended.outcome
    if running:
        return "running"
    return "rolled back" if followed and _rolled_back(attempt) else "killed"


def _rolled_back(attempt: Attempt) -> bool:
    """Whether the last thing an attempt did was to decide on a roll-back."""
    last = attempt.decisions[-1] if attempt.decisions else None
    return last is not None and last.restored is not None and all(c.seq < last.seq for c in attempt.commits)


def _reason(attempt: Attempt) -> str:
    if attempt.ended:
        return attempt.ended.reason
    return attempt.decisions[-1].reason if _rolled_back(attempt) else ""


def _last_sign(attempt: Attempt, follower: Attempt | None, beat: Heartbeat | None) -> float:
    """When an attempt ended, or was last seen alive [s since 1970]."""
    if attempt.ended:
        return attempt.ended.time
    seen = [attempt.claim.time, *(entry.time for entry in (*attempt.commits, *attempt.decisions))]
    if follower and follower.claim.lost_at:
        seen.append(follower.claim.lost_at)
    if beat and beat.attempt == attempt.number:
        seen.append(beat.time)
    return max(seen)
