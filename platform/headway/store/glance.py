"""Where many runs stand, at one object each: what each says of itself beside its heartbeat.

A run that does not say enough, or died in the middle of a sentence, is read whole, as `headway status` reads it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import ValidationError

from headway.store import keys
from headway.store.account import account
from headway.store.curve import newest_losses
from headway.store.objects import Store
from headway.store.presence import Heartbeat, lives
from headway.store.run import Run
from headway.store.standing import State, standing

READERS = 16
"""Runs that are read whole side by side."""


@dataclass(frozen=True)
class Glance:
    """One run at one moment."""

    run: str
    state: State
    tokens: int
    budget: int | None
    loss: float | None
    held_out: float | None
    attempts: int
    preemptions: int
    failures: int
    """Attempts that failed or were killed."""
    goodput: float | None
    host: str | None
    """Machine of the newest attempt's first rank."""
    seen: float | None
    """The last sign of life [s since 1970]."""
    reason: str
    """Why the newest attempt ended."""
    problem: str | None = None
    """What is wrong with it."""

    @property
    def share(self) -> float | None:
        """Of the budget, 0 to 1."""
        return self.tokens / self.budget if self.budget else None


def glance(store: Store, runs: Sequence[str]) -> list[Glance]:
    """Where each of these runs stands; all of them exist."""
    brief = [_brief(run, data) for run, data in zip(runs, store.get_all(map(keys.heartbeat, runs)), strict=True)]
    rest = [run for run, found in zip(runs, brief, strict=True) if found is None]
    with ThreadPoolExecutor(READERS) as readers:
        whole = readers.map(lambda run: _whole(Run(store, run)), rest)
        return [found or next(whole) for found in brief]


def _brief(run: str, data: bytes | None) -> Glance | None:
    """What a heartbeat tells, if its attempt has ended in order or is alive."""
    try:
        beat = Heartbeat.model_validate_json(data or b"")
    except ValidationError:
        return None
    told = beat.summary
    if told is None or not (told.outcome or _alive(beat)):
        return None
    return Glance(
        run=run,
        state=told.outcome or "running",
        tokens=beat.tokens,
        budget=told.budget,
        loss=told.loss,
        held_out=told.held_out,
        attempts=told.attempts,
        preemptions=told.preemptions + (told.outcome == "preempted"),
        failures=told.failures + (told.outcome == "failed"),
        goodput=told.goodput,
        host=beat.holder.host,
        seen=beat.time,
        reason=told.reason,
    )


def _alive(beat: Heartbeat) -> bool:
    here = lives(beat.holder)
    return beat.fresh if here is None else here


def _whole(run: Run) -> Glance:
    """What journal, log and ledgers tell."""
    stands = standing(run)
    loss, held_out = newest_losses(run.store, run.name)
    books = account(run, stands)
    last = stands.tries[-1] if stands.tries else None
    outcomes = [each.outcome for each in stands.tries]
    return Glance(
        run=run.name,
        state=stands.state,
        tokens=stands.tokens,
        budget=stands.budget,
        loss=loss,
        held_out=held_out,
        attempts=len(stands.tries),
        preemptions=outcomes.count("preempted"),
        failures=outcomes.count("failed") + outcomes.count("killed"),
        goodput=books.goodput if books.total else None,
        host=last.holder.host if last else None,
        seen=stands.seen,
        reason=last.reason if last else "",
        problem=stands.problem,
    )
