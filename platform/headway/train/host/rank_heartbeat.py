"""Heartbeats of the ranks on one node, in memory that they share with their launcher.

A thread in each rank writes the heartbeat, so the launcher can tell a frozen process from one that waits. The training
loop counts progress. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

import threading
import time
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from headway.telemetry.phases import PHASES

BEAT_SECONDS = 0.5
"""Time between two heartbeats [s]."""
FIELDS = 3
"""Fields in a rank's row: time of the last heartbeat, phase, progress."""


@dataclass(frozen=True)
class RankHeartbeat:
    """The last heartbeat of one rank."""

    rank: int
    """Global rank."""
    phase: str
    progress: int
    """Counter that grows with each phase entered and each micro-batch computed."""
    age: float
    """Time since the heartbeat [s]."""


class HeartbeatTable:
    """Shared table with one row per rank of this node."""

    def __init__(self, context: BaseContext, ranks: int) -> None:
        self._rows = context.Array("d", ranks * FIELDS, lock=False)
        self.ranks = ranks

    def writer(self, local_rank: int) -> "HeartbeatWriter":
        """The writer of one rank's row."""
        return HeartbeatWriter(self._rows, local_rank)

    def read(self, first: int) -> list[RankHeartbeat]:
        """The last heartbeat of each rank that has written one; `first` is this node's first global rank."""
        now = time.monotonic()
        rows = [self._rows[rank * FIELDS : (rank + 1) * FIELDS] for rank in range(self.ranks)]
        return [
            RankHeartbeat(first + rank, PHASES[int(phase)], int(progress), max(0.0, now - beat))
            for rank, (beat, phase, progress) in enumerate(rows)
            if beat
        ]


class HeartbeatWriter:
    """Writes the heartbeat of this rank."""

    def __init__(self, rows: Any = None, local_rank: int = 0) -> None:
        self._rows = [0.0] * FIELDS if rows is None else rows
        self._offset = local_rank * FIELDS
        self._stopped = threading.Event()

    def start(self) -> "HeartbeatWriter":
        """Write heartbeats from a thread until `stop`."""
        self._beat()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop and clear the row: the watchdog ignores this rank from now on."""
        self._stopped.set()
        self._rows[self._offset] = 0.0

    def advance(self, phase: str | None = None) -> None:
        """Count one unit of progress; with `phase`, also record that the rank entered it."""
        if phase is not None:
            self._rows[self._offset + 1] = PHASES.index(phase)
        self._rows[self._offset + 2] += 1

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        self._rows[self._offset] = time.monotonic()
