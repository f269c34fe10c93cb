"""Writes the heartbeats and the log of an attempt in the background, in a bounded number of requests.

A heartbeat is one write. Every tenth one also reads the last heartbeat, so that a fenced attempt falls silent. Log
lines wait for four heartbeats at most, urgent ones for one. With a heartbeat every 8 s, a run that trains makes 14,580
requests a day: it writes 10,800 heartbeats and 2,700 log chunks, and reads 1,080 heartbeats.
"""

import math
import threading
import time
from collections.abc import Callable

from headway.errors import HeadwayError
from headway.runs.liveness import Heartbeat, read_heartbeat, write_heartbeat
from headway.runs.run_log import LogWriter

LOG_BEATS = 4
"""Longest delay of a log line [heartbeat intervals]."""
CHECK_BEATS = 10
"""Heartbeats between two checks for a newer attempt."""


class BackgroundWriter:
    """Writes the heartbeats and the log of one attempt, from a thread of its own."""

    def __init__(
        self,
        log: LogWriter,
        heartbeat: Callable[[], Heartbeat],
        every: float,
        on_error: Callable[[Exception], object],
    ) -> None:
        """`heartbeat` returns the heartbeat to write, `every` so many seconds. `on_error` gets each failed request."""
        self.log, self.heartbeat, self.every, self.on_error = log, heartbeat, every, on_error
        self._beats = 0
        self._last_beat = self._last_flush = -math.inf
        self._fenced = self._urgent = self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and write the last heartbeat and the rest of the log."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        try:
            self.log.flush()  # before the heartbeat: once that says how the attempt ended, nobody waits for more lines
            self._beat(check=True)
        except (HeadwayError, OSError) as error:
            self.on_error(error)

    def notify(self) -> None:
        """Write the log soon: its last line is urgent."""
        self._urgent = True
        self._wake.set()

    def tick(self, now: float) -> None:
        """Write what is due at `now`, by the monotonic clock [s].

        Raises:
            StoreError: a request failed; the next tick that is due makes another.
        """
        beat_due = now >= self._last_beat + self.every
        if self.log.pending and (now >= self._flush_due() or (beat_due and self._urgent)):
            self._last_flush, self._urgent = now, False
            self.log.flush()
        if beat_due:
            paused = now > self._last_beat + 2 * self.every  # long enough for another process to take the run over
            self._last_beat = now
            self._beat(check=paused or self._beats % CHECK_BEATS == 0)

    def due(self) -> float:
        """When to call `tick` again, by the monotonic clock [s]."""
        beat_due = self._last_beat + self.every
        return min(beat_due, self._flush_due()) if self.log.pending else beat_due

    def _flush_due(self) -> float:
        return self._last_flush + self.every * (1 if self._urgent else LOG_BEATS)

    def _beat(self, *, check: bool) -> None:
        """Write a heartbeat, unless a newer attempt does; only a `check` finds out."""
        if self._fenced:
            return
        heartbeat = self.heartbeat()
        if check:
            last = read_heartbeat(self.log.store, self.log.run)
            self._fenced = last is not None and last.attempt > heartbeat.attempt
        if not self._fenced:
            write_heartbeat(self.log.store, self.log.run, heartbeat)
            self._beats += 1

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                self.tick(time.monotonic())
            except (HeadwayError, OSError) as error:
                self.on_error(error)
            self._wake.wait(max(0.0, self.due() - time.monotonic()))
