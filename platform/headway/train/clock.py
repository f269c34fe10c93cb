"""The wall clock of one rank: always in exactly one phase, so that the phases add up to the time that passed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from headway.store.record import PHASES, Row
from headway.train.pulse import Pulse


class Clock:
    """Books every second since `started` [s since 1970] to a phase; begins in `startup`."""

    def __init__(self, started: float, pulse: Pulse | None = None) -> None:
        """`pulse` learns of each phase."""
        self.started = started
        self._pulse = pulse or Pulse()
        self.phase = "startup"
        self._booked = dict.fromkeys(PHASES, 0.0)
        self._since = time.monotonic() - (time.time() - started)
        self._origin = self._since

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

    def row(self, attempt: int, rank: int, tokens: int) -> Row:
        """The account up to now."""
        self.enter(self.phase)
        return Row(
            attempt=attempt,
            rank=rank,
            started=self.started,
            until=self.started + self._since - self._origin,
            phases={phase: seconds for phase, seconds in self._booked.items() if seconds},
            tokens=tokens,
        )
