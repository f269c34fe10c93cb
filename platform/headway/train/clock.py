"""The wall clock of one rank: always in exactly one phase, so that the phases add up to the time that passed."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headway.runs.ledger import LedgerRow
from headway.telemetry.phases import PHASES
from headway.train.heartbeat import HeartbeatWriter

Queue = tuple[float, float]
"""When a job was submitted, and when it was given machines [s since 1970]."""


class Clock:
    """Books every second of a rank to a phase: of the queue first, then of `startup`, then of what is entered."""

    def __init__(self, began: float, queue: Queue | None = None, pulse: HeartbeatWriter | None = None) -> None:
        """`began`: when the rank's launch began [s since 1970]; what passed since its `queue` is `startup`, too.

        `pulse` learns of each phase. SLURM's times are another machine's, in whole seconds: what contradicts `began`
        gives way to it.
        """
        started = min(queue[1], began) if queue else began
        self.started = min(queue[0], started) if queue else began
        self._pulse = pulse or HeartbeatWriter()
        self.phase = "startup"
        self._booked = dict.fromkeys(PHASES, 0.0) | {"queue": started - self.started}
        now = time.monotonic()
        self._since = now - (time.time() - started)
        self._origin = self._since - self._booked["queue"]

    def enter(self, phase: str) -> None:
        """Leave the present phase for `phase`."""
        now = time.monotonic()
        self._booked[self.phase] += now - self._since
        self.phase, self._since = phase, now
        self._pulse.advance(phase)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Spend the block in `phase`, then go back to the one before."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def spent(self) -> dict[str, float]:
        """Seconds by phase, up to now."""
        return self._booked | {self.phase: self._booked[self.phase] + time.monotonic() - self._since}

    def row(self, attempt: int, rank: int, tokens: int) -> LedgerRow:
        """The account up to now."""
        self.enter(self.phase)
        return LedgerRow(
            attempt=attempt,
            rank=rank,
            started=self.started,
            until=self.started + self._since - self._origin,
            phases={phase: seconds for phase, seconds in self._booked.items() if seconds},
            tokens=tokens,
        )


def queue(text: str | None) -> Queue | None:
    """The queue's times from `<submitted>:<started>`, as HEADWAY_QUEUE has them; None if they say nothing sensible."""
    try:
        submitted, started = (float(part) for part in (text or "").split(":"))
    except ValueError:
        return None
    return (submitted, started) if 0 < submitted <= started < math.inf else None
