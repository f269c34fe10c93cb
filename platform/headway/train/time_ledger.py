"""The ledger of an attempt: the time of each rank, by phase. It counts from each commit on, and from the end."""

import json

from headway.checkpoint.collectives import Collectives
from headway.reports.summary import SummaryBuilder
from headway.runs import Run, keys
from headway.runs.ledger import LedgerRow
from headway.train.clock import Clock


class TimeLedger:
    """The part of this rank in the ledger of one attempt. Its methods are collective."""

    def __init__(self, run: Run, attempt: int, collectives: Collectives, clock: Clock, summary: SummaryBuilder) -> None:
        self._run, self._attempt, self._collectives = run, attempt, collectives
        self._clock, self._summary = clock, summary

    def lines(self, position: int) -> str:
        """The ledger up to now, a JSON line for each rank; `position` in tokens."""
        row = self._clock.ledger_row(self._attempt, self._collectives.rank, position)
        rows = [LedgerRow.model_validate(each) for each in self._collectives.all_gather(row.model_dump())]
        self._summary.record_ledger(rows)
        return "".join(json.dumps(row.model_dump()) + "\n" for row in rows)

    def write(self, position: int) -> None:
        """Write the ledger up to now."""
        data = self.lines(position).encode()
        self._collectives.on_rank0(lambda: self._run.store.put(keys.ledger(self._run.name, self._attempt), [data]))
