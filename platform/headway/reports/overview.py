"""Where many runs stand, at one object each: what each says of itself beside its heartbeat.

Of a run that died in the middle of a sentence the journal is read; one that does not say enough is read whole, as
`headway status` reads it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pydantic import ValidationError

from headway.objectstore.protocol import Store
from headway.reports.curve import newest_losses
from headway.reports.status import State, run_status
from headway.reports.time_accounting import account_time
from headway.runs import keys
from headway.runs.liveness import Heartbeat, RunSummary, is_alive
from headway.runs.run import Run

READERS = 16
"""Runs that are read whole side by side."""


@dataclass(frozen=True)
class RunOverview:
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
    slow: str = ""
    """Which rank keeps the others waiting, while it is trained."""
    problem: str | None = None
    """What is wrong with it."""

    @property
    def share(self) -> float | None:
        """Of the budget, 0 to 1."""
        return self.tokens / self.budget if self.budget else None


def overview(store: Store, runs: Sequence[str]) -> list[RunOverview]:
    """Where each of these runs stands; all of them exist."""
    beats = [_beat(data) for data in store.get_all(map(keys.heartbeat, runs))]
    brief = [_brief(run, beat) for run, beat in zip(runs, beats, strict=True)]
    rest = [(run, beat) for run, beat, found in zip(runs, beats, brief, strict=True) if found is None]
    with ThreadPoolExecutor(READERS) as readers:
        others = readers.map(lambda each: _by_journal(Run(store, each[0]), each[1]), rest)
        return [found or next(others) for found in brief]


def _beat(data: bytes | None) -> Heartbeat | None:
    try:
        return Heartbeat.model_validate_json(data or b"")
    except ValidationError:
        return None


def _brief(run: str, beat: Heartbeat | None) -> RunOverview | None:
    """What a heartbeat tells, if its attempt has ended in order or is alive."""
    if beat is None or beat.summary is None:
        return None
    if beat.summary.outcome:
        return _told(run, beat, beat.summary, beat.summary.outcome)
    here = is_alive(beat.holder)
    alive = beat.fresh if here is None else here
    return _told(run, beat, beat.summary, "running") if alive else None


def _told(run: str, beat: Heartbeat, summary: RunSummary, state: State) -> RunOverview:
    return RunOverview(
        run=run,
        state=state,
        tokens=beat.tokens,
        budget=summary.budget,
        loss=summary.loss,
        held_out=summary.held_out,
        attempts=summary.attempts,
        preemptions=summary.preemptions + (state == "preempted"),
        failures=summary.failures + (state in {"failed", "killed"}),
        goodput=summary.goodput,
        host=beat.holder.host,
        seen=beat.time,
        reason=summary.reason,
        slow=summary.slow if state == "running" else "",
    )


def _by_journal(run: Run, beat: Heartbeat | None) -> RunOverview:
    """What the journal says of a run that did not say itself how it ended; all that there is, if need be."""
    history = run.history()
    last = history.attempts[-1] if history.attempts else None
    if last is None or beat is None or beat.summary is None or last.number != beat.attempt:
        return _whole(run)
    told = _told(run.name, beat, beat.summary, last.ended.outcome if last.ended else "killed")
    if last.ended is None:
        return replace(told, tokens=history.tokens)
    return replace(told, tokens=history.tokens, reason=last.ended.reason, seen=max(beat.time, last.ended.time))


def _whole(run: Run) -> RunOverview:
    """What journal, log and ledgers tell."""
    stands = run_status(run)
    loss, held_out = newest_losses(run.store, run.name)
    books = account_time(run, stands)
    last = stands.attempts[-1] if stands.attempts else None
    outcomes = [each.outcome for each in stands.attempts]
    return RunOverview(
        run=run.name,
        state=stands.state,
        tokens=stands.tokens,
        budget=stands.budget,
        loss=loss,
        held_out=held_out,
        attempts=len(stands.attempts),
        preemptions=outcomes.count("preempted"),
        failures=outcomes.count("failed") + outcomes.count("killed"),
        goodput=books.goodput if books.total else None,
        host=last.holder.host if last else None,
        seen=stands.seen,
        reason=last.reason if last else "",
        problem=stands.problem,
    )
