"""The pulse of the ranks on one machine: what each last did, in memory that they share with their launcher.

A thread of each rank beats, so a frozen process is told from one that waits; the loop counts what it gets done.
Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import threading
import time
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from headway.telemetry.phases import PHASES

BEAT_SECONDS = 0.5
FIELDS = 3
"""Of a rank: when it last beat, its phase, and how much it got done."""


@dataclass(frozen=True)
class RankHeartbeat:
    """A sign of life of one rank."""

    rank: int
    """Among all ranks of the launch."""
    phase: str
    done: int
    """Grows with all that the rank gets done: phases begun, micro-batches computed."""
    silent: float
    """How long ago it was given [s]."""


class HeartbeatTable:
    """A row for each rank of one machine."""

    def __init__(self, context: BaseContext, ranks: int) -> None:
        self._rows = context.Array("d", ranks * FIELDS, lock=False)
        self.ranks = ranks

    def row(self, rank: int) -> "HeartbeatWriter":
        """The row of the machine's rank `rank`, for that rank to write."""
        return HeartbeatWriter(self._rows, rank)

    def read(self, first: int) -> list[RankHeartbeat]:
        """The last sign of each rank that has given one; the machine's ranks count from `first`."""
        now = time.monotonic()
        rows = [self._rows[rank * FIELDS : (rank + 1) * FIELDS] for rank in range(self.ranks)]
        return [
            RankHeartbeat(first + rank, PHASES[int(phase)], int(done), max(0.0, now - seen))
            for rank, (seen, phase, done) in enumerate(rows)
            if seen
        ]


class HeartbeatWriter:
    """The pulse of this rank."""

    def __init__(self, rows: Any = None, rank: int = 0) -> None:
        self._rows = [0.0] * FIELDS if rows is None else rows
        self._at = rank * FIELDS
        self._stopped = threading.Event()

    def begin(self) -> "HeartbeatWriter":
        """Beat from now on, from a thread."""
        self._beat()
        threading.Thread(target=self._go_on, name="pulse", daemon=True).start()
        return self

    def stop(self) -> None:
        """Beat no more: the rank has nothing left to do, and is not watched."""
        self._stopped.set()
        self._rows[self._at] = 0.0

    def advance(self, phase: str | None = None) -> None:
        """Count something done; or begun, if it is a phase."""
        if phase is not None:
            self._rows[self._at + 1] = PHASES.index(phase)
        self._rows[self._at + 2] += 1

    def _go_on(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        self._rows[self._at] = time.monotonic()
