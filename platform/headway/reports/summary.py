"""Builds the summary of a run (loss, tokens, attempts, goodput) that its heartbeat carries during training."""

from collections.abc import Sequence
from typing import Any, assert_never

from headway.events.training_events import (
    AttemptClaimed,
    AttemptEnded,
    AttemptStarted,
    BatchJudged,
    BatchSkipped,
    EvaluationDone,
    RankRecovered,
    RankSlow,
    RestoreEvent,
    SaveEvent,
    StepDone,
    StepTimed,
    TrainingEvent,
)
from headway.reports.status import run_status
from headway.reports.time_accounting import account_time
from headway.runs.ledger import LedgerRow
from headway.runs.liveness import RunSummary, read_heartbeat
from headway.runs.run import Run

CheckpointEvent = SaveEvent | RestoreEvent
"""Events that do not change the summary."""


class SummaryBuilder:
    """Summarises a run during one attempt. The first `build` reads earlier attempts; all other calls are cheap."""

    def __init__(self, run: Run, attempt: int, budget: int) -> None:
        self.run, self.attempt = run, attempt
        self._current: dict[str, Any] = {"budget": budget}
        """Fields of the summary that the current attempt sets."""
        self._earlier: dict[str, Any] | None = None
        """Fields of the summary that earlier attempts determine."""

    def handle(self, event: TrainingEvent) -> None:
        """Apply an event of the attempt."""
        if isinstance(event, CheckpointEvent):
            return
        match event:
            case StepDone():
                self._current["loss"] = event.loss
            case EvaluationDone():
                self._current["held_out"] = event.held_out
            case RankSlow(rank=rank, host=host, factor=factor):
                self._current["slow"] = f"rank {rank} on {host} takes {factor} times as long as the others"
            case RankRecovered():
                self._current["slow"] = ""
            case AttemptEnded():
                self._current |= {"outcome": event.outcome, "reason": event.reason}
            case AttemptClaimed() | AttemptStarted() | BatchJudged() | BatchSkipped() | StepTimed():
                pass
            case _:
                assert_never(event)

    def record_ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Update the attempt's rank-time from its ledger."""
        self._current["step"] = sum(row.phases.get("step", 0.0) for row in rows)
        self._current["total"] = sum(sum(row.phases.values()) - row.phases.get("queue", 0.0) for row in rows)

    def build(self) -> RunSummary:
        """The summary as of now.

        Raises:
            StoreError: earlier attempts cannot be read.
        """
        if self._earlier is None:
            self._earlier = _earlier_attempts(self.run, self.attempt)
        return RunSummary(**{**self._earlier, **self._current})


def _earlier_attempts(run: Run, attempt: int) -> dict[str, Any]:
    """Summarise the attempts before `attempt`: those in the last heartbeat's summary, and those since."""
    beat = read_heartbeat(run.store, run.name)
    status = run_status(run)
    attempts = [each for each in status.attempts if each.number < attempt]
    base = beat.summary if beat and beat.attempt < attempt else None
    first = beat.attempt if base and beat else 0
    times = [each for each in account_time(run, status, first).rank_times if each.attempt < attempt]
    return {
        "attempts": len(attempts) + 1,
        "preemptions": sum(each.outcome == "preempted" for each in attempts),
        "failures": sum(each.outcome in {"failed", "killed"} for each in attempts),
        "earlier_step": (base.earlier_step if base else 0.0) + sum(each.phases["step"] for each in times),
        "earlier_total": (base.earlier_total if base else 0.0)
        + sum(each.accounted - each.phases["queue"] for each in times),
        "loss": base.loss if base else None,
        "held_out": base.held_out if base else None,
    }
