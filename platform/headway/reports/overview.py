"""Overview of many runs, at one object per run: the summary in its heartbeat.

A run that died without recording an end also takes its journal. A run without a summary takes its log and ledgers too,
as in `headway status`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from headway.errors import DamageError, HeadwayError
from headway.objectstore.protocol import Store
from headway.reports.curve import newest_losses
from headway.reports.status import NO_RECIPE, State, run_status
from headway.reports.time_accounting import account_time
from headway.runs import keys
from headway.runs.liveness import HEARTBEAT_BYTES, Heartbeat, RunSummary, is_alive, parse_heartbeat
from headway.runs.run import Run


@dataclass(frozen=True)
class RunOverview:
    """One run at one moment."""

    run: str
    state: State
    tokens: int
    budget: int | None
    """Tokens to train on; None if the recipe is damaged."""
    loss: float | None
    """Training loss of the last logged step [nats per token]."""
    held_out: float | None
    """Loss of the last evaluation [nats per token]."""
    attempts: int
    preemptions: int
    failures: int
    """Attempts that failed or were killed."""
    goodput: float | None
    """Share of the allocated rank-time that was spent on training steps."""
    host: str | None
    """Host of rank 0 in the newest attempt."""
    last_seen: float | None
    """Last sign of life [s since 1970]."""
    reason: str
    """Reason for the end of the newest attempt."""
    slow: str = ""
    """Message about a straggling rank of a running attempt."""
    problem: str | None = None
    """Problem with the run's recipe."""
    finding: str | None = None
    """Why nothing is known of the run: it cannot be read, or there is none of this name."""

    @property
    def share(self) -> float | None:
        """Trained share of the token budget, 0 to 1."""
        return self.tokens / self.budget if self.budget else None


def overview(store: Store, runs: Sequence[str]) -> list[RunOverview]:
    """The overview of each run, in order. All of the runs must exist."""
    bodies = store.get_all(map(keys.heartbeat, runs), HEARTBEAT_BYTES + 1)
    beats = [None if data is None else parse_heartbeat(data) for data in bodies]
    rows = [_from_heartbeat(run, beat) for run, beat in zip(runs, beats, strict=True)]
    missing = [(run, beat) for run, beat, row in zip(runs, beats, rows, strict=True) if row is None]
    with ThreadPoolExecutor(store.readers) as readers:
        others = readers.map(lambda each: _from_run(Run(store, each[0]), each[1]), missing)
        return [row or next(others) for row in rows]


def _from_heartbeat(run: str, beat: Heartbeat | None) -> RunOverview | None:
    """The overview by the heartbeat alone; None unless its attempt has a recorded outcome or is alive."""
    if beat is None or beat.summary is None:
        return None
    if beat.summary.outcome:
        return _from_summary(run, beat, beat.summary, beat.summary.outcome)
    local = is_alive(beat.holder)
    alive = beat.fresh if local is None else local
    return _from_summary(run, beat, beat.summary, "running") if alive else None


def _from_summary(run: str, beat: Heartbeat, summary: RunSummary, state: State) -> RunOverview:
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
        last_seen=beat.time,
        reason=summary.reason,
        slow=summary.slow if state == "running" else "",
    )


def _from_run(run: Run, beat: Heartbeat | None) -> RunOverview:
    """The overview by all that the run needs for it; what cannot be read hides no other run."""
    try:
        return _from_journal(run, beat)
    except HeadwayError as error:
        return RunOverview(run.name, "new", 0, None, None, None, 0, 0, 0, None, None, None, "", finding=str(error))


def _from_journal(run: Run, beat: Heartbeat | None) -> RunOverview:
    """The overview by heartbeat and journal; by log and ledgers too if the heartbeat is not the last attempt's."""
    history = run.history()
    last = history.attempts[-1] if history.attempts else None
    if last is None or beat is None or beat.summary is None or last.number != beat.attempt:
        return _from_log(run)
    row = _from_summary(run.name, beat, beat.summary, last.end.outcome if last.end else "killed")
    if last.end is None:
        return replace(row, tokens=history.tokens)
    return replace(row, tokens=history.tokens, reason=last.end.reason, last_seen=max(beat.time, last.end.time))


def _from_log(run: Run) -> RunOverview:
    """The overview by journal, log and ledgers."""
    status = run_status(run)
    if status.problem == NO_RECIPE and not run.journal.entries:
        raise DamageError(f"{keys.run(run.name)}: holds no run, neither a recipe nor a journal")
    loss, held_out = newest_losses(run.store, run.name)
    accounting = account_time(run, status)
    last = status.attempts[-1] if status.attempts else None
    outcomes = [each.outcome for each in status.attempts]
    return RunOverview(
        run=run.name,
        state=status.state,
        tokens=status.tokens,
        budget=status.budget,
        loss=loss,
        held_out=held_out,
        attempts=len(status.attempts),
        preemptions=outcomes.count("preempted"),
        failures=outcomes.count("failed") + outcomes.count("killed"),
        goodput=accounting.goodput if accounting.total else None,
        host=last.holder.host if last else None,
        last_seen=status.last_seen,
        reason=last.reason if last else "",
        problem=status.problem,
    )
