"""Status of a run and of each of its attempts, derived from journal and heartbeat."""

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from headway.errors import DamageError, MissingObject, UnknownKindError
from headway.runs.entries import Holder
from headway.runs.history import Attempt, History
from headway.runs.liveness import Heartbeat, read_heartbeat
from headway.runs.run import Run

State = Literal["new", "running", "done", "preempted", "failed", "killed"]
"""State of a run. `new`: never claimed. `killed`: no end is recorded, and no process is alive on it."""
NO_RECIPE = "its recipe is missing"
"""Problem of a run without a recipe."""
Outcome = Literal["running", "done", "preempted", "failed", "killed", "rolled back"]
"""Outcome of an attempt. `rolled back`: the next attempt restarts from an earlier checkpoint."""


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt, from its claim to its end or its last sign of life."""

    number: int
    holder: Holder
    started: float
    """Time of its claim [s since 1970]."""
    last_seen: float
    """Time of its end, or of its last sign of life [s since 1970]."""
    outcome: Outcome
    reason: str
    tokens_before: int
    """Tokens of the newest checkpoint at its claim."""
    tokens_committed: int
    """Tokens of its own last checkpoint, or of the one that a person went back to in it, or `tokens_before`."""


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment."""

    run: str
    state: State
    budget: int | None
    """Tokens to train on; None if the recipe is damaged."""
    tokens: int
    """Tokens trained: by the heartbeat while the run is alive, else by its newest checkpoint."""
    attempts: list[AttemptStatus]
    heartbeat: Heartbeat | None
    history: History
    problem: str | None
    """Problem with the recipe."""

    @property
    def share(self) -> float | None:
        """Trained share of the token budget, 0 to 1."""
        return self.tokens / self.budget if self.budget else None

    @property
    def last_seen(self) -> float | None:
        """Last sign of life of any attempt [s since 1970]."""
        return max((each.last_seen for each in self.attempts), default=None)


def run_status(run: Run) -> RunStatus:
    """The status of `run` now."""
    history, beat = run.history(), read_heartbeat(run.store, run.name)
    running = bool(history.attempts) and run.is_alive(history.attempts[-1])
    attempts = _attempts(history, beat, running=running)
    budget, problem = None, None
    try:
        budget = run.recipe().train.tokens
    except MissingObject:
        problem = NO_RECIPE
    except (DamageError, UnknownKindError) as error:
        problem = str(error)
    tokens = history.tokens
    if running and beat and beat.attempt == attempts[-1].number:
        tokens = max(tokens, beat.tokens)
    return RunStatus(run.name, _state(attempts), budget, tokens, attempts, beat, history, problem)


def _state(attempts: list[AttemptStatus]) -> State:
    if not attempts:
        return "new"
    outcome = attempts[-1].outcome
    return "preempted" if outcome == "rolled back" else outcome


def _attempts(history: History, beat: Heartbeat | None, *, running: bool) -> list[AttemptStatus]:
    attempts: list[AttemptStatus] = []
    for attempt, follower in zip_longest(history.attempts, history.attempts[1:]):
        attempts.append(
            AttemptStatus(
                number=attempt.number,
                holder=attempt.claim.holder,
                started=attempt.claim.time,
                last_seen=_last_seen(attempt, follower, beat),
                outcome=_outcome(attempt, running=running and follower is None, followed=follower is not None),
                reason=_reason(attempt),
                tokens_before=attempt.tokens_before,
                tokens_committed=_tokens_committed(attempt),
            )
        )
    return attempts


def _outcome(attempt: Attempt, *, running: bool, followed: bool) -> Outcome:
    if attempt.is_rollback:
        return "rolled back"
    if attempt.end:
        return attempt.end.outcome
    if running:
        return "running"
    return "rolled back" if followed and _rolled_back(attempt) else "killed"


def _tokens_committed(attempt: Attempt) -> int:
    if attempt.is_rollback:
        return attempt.decisions[-1].restored or 0
    return attempt.commits[-1].tokens if attempt.commits else attempt.tokens_before


def _rolled_back(attempt: Attempt) -> bool:
    """Whether an attempt's last entry is the decision to roll back."""
    last = attempt.decisions[-1] if attempt.decisions else None
    return last is not None and last.restored is not None and all(c.seq < last.seq for c in attempt.commits)


def _reason(attempt: Attempt) -> str:
    if attempt.end:
        return attempt.end.reason
    return attempt.decisions[-1].reason if _rolled_back(attempt) else ""


def _last_seen(attempt: Attempt, follower: Attempt | None, beat: Heartbeat | None) -> float:
    """Time of an attempt's end, or of its last sign of life [s since 1970]."""
    if attempt.end:
        return attempt.end.time
    times = [attempt.claim.time, *(entry.time for entry in (*attempt.commits, *attempt.decisions))]
    if follower and follower.claim.lost_at:
        times.append(follower.claim.lost_at)
    if beat and beat.attempt == attempt.number:
        times.append(beat.time)
    return max(times)
