"""The wall clock of one rank. It is always in exactly one phase, so the phases add up to the elapsed time."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headway.runs.ledger import LedgerRow
from headway.telemetry.phases import PHASES
from headway.train.host.rank_heartbeat import HeartbeatWriter

QueueTimes = tuple[float, float]
"""When a job was submitted, and when it was given nodes [s since 1970]."""


class Clock:
    """Assigns each second of a rank to a phase: first `queue`, then `startup`, then the phases that are entered."""

    def __init__(
        self, launch_time: float, queue: QueueTimes | None = None, heartbeat: HeartbeatWriter | None = None
    ) -> None:
        """`launch_time`: start of the rank's launch [s since 1970]. The time from `queue` to it counts as `startup`.

        `heartbeat` records each phase. SLURM's times are in whole seconds and come from another machine; where they
        contradict `launch_time`, it wins.
        """
        job_start = min(queue[1], launch_time) if queue else launch_time
        self.start = min(queue[0], job_start) if queue else launch_time
        """Start of the first phase [s since 1970]."""
        self._heartbeat = heartbeat or HeartbeatWriter()
        self.phase = "startup"
        self._seconds = dict.fromkeys(PHASES, 0.0) | {"queue": job_start - self.start}
        """Seconds by phase, up to the start of the present phase."""
        now = time.monotonic()
        self._phase_start = now - (time.time() - job_start)
        self._origin = self._phase_start - self._seconds["queue"]

    def enter(self, phase: str) -> None:
        """Leave the present phase and enter `phase`."""
        now = time.monotonic()
        self._seconds[self.phase] += now - self._phase_start
        self.phase, self._phase_start = phase, now
        self._heartbeat.advance(phase)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Spend the block in `phase`, then return to the previous phase."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds by phase, up to now."""
        return self._seconds | {self.phase: self._seconds[self.phase] + time.monotonic() - self._phase_start}

    def ledger_row(self, attempt: int, rank: int, tokens: int) -> LedgerRow:
        """The rank's row of the ledger, up to now."""
        self.enter(self.phase)
        return LedgerRow(
            attempt=attempt,
            rank=rank,
            started=self.start,
            until=self.start + self._phase_start - self._origin,
            phases={phase: seconds for phase, seconds in self._seconds.items() if seconds},
            tokens=tokens,
        )


def parse_queue_times(text: str | None) -> QueueTimes | None:
    """The times in `<submitted>:<started>`, the format of HEADWAY_QUEUE; None if they are missing or invalid."""
    try:
        submitted, started = (float(part) for part in (text or "").split(":"))
    except ValueError:
        return None
    return (submitted, started) if 0 < submitted <= started < math.inf else None
