"""Counting along while a run is trained, for the summary beside its heartbeat."""

from collections.abc import Mapping, Sequence
from typing import Any

from headway.reports.status import run_status
from headway.reports.time_accounting import account_time
from headway.runs.ledger import LedgerRow
from headway.runs.liveness import RunSummary, read_heartbeat
from headway.runs.run import Run


class SummaryBuilder:
    """Counts along during one attempt. `take` and `book` are cheap; the first `summary` reads the run's past."""

    def __init__(self, run: Run, attempt: int, budget: int) -> None:
        self.run, self.attempt = run, attempt
        self._now: dict[str, Any] = {"budget": budget}
        self._past: dict[str, Any] | None = None

    def take(self, event: str, fields: Mapping[str, Any]) -> None:
        """Go on by one of the attempt's events; most say nothing of what is counted."""
        if event == "step.done":
            self._now["loss"] = fields["loss"]
        elif event == "evaluation.done":
            self._now["held_out"] = fields["held_out"]
        elif event == "rank.slow":
            self._now["slow"] = "rank {rank} on {host} takes {factor} times as long as the others".format(**fields)
        elif event == "rank.recovered":
            self._now["slow"] = ""
        elif event == "attempt.ended":
            self._now |= {"outcome": fields["outcome"], "reason": fields["reason"]}

    def book(self, rows: Sequence[LedgerRow]) -> None:
        """Take note of the attempt's ledger, as it has just been written."""
        self._now["step"] = sum(row.phases.get("step", 0.0) for row in rows)
        self._now["total"] = sum(sum(row.phases.values()) - row.phases.get("queue", 0.0) for row in rows)

    def summary(self) -> RunSummary:
        """The run as of now.

        Raises:
            StoreError: its past cannot be read.
        """
        if self._past is None:
            self._past = _past(self.run, self.attempt)
        return RunSummary(**{**self._past, **self._now})


def _past(run: Run, attempt: int) -> dict[str, Any]:
    """What came before an attempt: what the last heartbeat summed up, and the attempts since."""
    beat = read_heartbeat(run.store, run.name)
    stands = run_status(run)
    tries = [each for each in stands.attempts if each.number < attempt]
    known = beat.summary if beat and beat.attempt < attempt else None
    since = beat.attempt if known and beat else 0
    booked = [line for line in account_time(run, stands, since).lines if line.attempt < attempt]
    return {
        "attempts": len(tries) + 1,
        "preemptions": sum(each.outcome == "preempted" for each in tries),
        "failures": sum(each.outcome in {"failed", "killed"} for each in tries),
        "earlier_step": (known.earlier_step if known else 0.0) + sum(line.phases["step"] for line in booked),
        "earlier_total": (known.earlier_total if known else 0.0)
        + sum(line.booked - line.phases["queue"] for line in booked),
        "loss": known.loss if known else None,
        "held_out": known.held_out if known else None,
    }
