"""A circuit breaker for what is asked side by side, from threads or from tasks: pybreaker is told how requests went."""

import threading
import time
from contextlib import suppress

import pybreaker


class CircuitBreaker:
    """Opens after failures in a row, and closes with the first success.

    Requests may run for minutes. While it is open, one request is let through in each rest, whatever became of the one
    before.
    """

    def __init__(self, name: str, failures: int, rest_seconds: float) -> None:
        """`name` is whom it spares; it opens after so many `failures`, and for so long [s]."""
        self.name, self.rest_seconds = name, rest_seconds
        self._breaker = pybreaker.CircuitBreaker(fail_max=failures, reset_timeout=rest_seconds, name=name)
        self._lock = threading.Lock()
        self._next = 0.0
        self.answered = self.failed = 0
        """Requests, by how they went; those that it kept back are none."""
        self.failure: Exception | None = None
        """The last one, if nothing has succeeded since."""

    @property
    def closed(self) -> bool:
        """Whether all requests are let through."""
        return self._breaker.current_state == pybreaker.STATE_CLOSED

    def admits(self) -> bool:
        """Whether the next request is let through: any, or the one that tries whether all is well again."""
        with self._lock:
            if self.closed:
                return True
            now = time.monotonic()
            if now < self._next:
                return False
            self._next = now + self.rest_seconds
            self._breaker.half_open()
            return True

    def record(self, failure: Exception | None) -> None:
        """A request that was let through succeeded, or had a `failure`."""

        def replay() -> None:
            if failure:
                raise failure

        with self._lock:
            was = self._breaker.current_state
            self.answered += failure is None
            self.failed += failure is not None
            if failure is None and was != pybreaker.STATE_CLOSED:
                self._breaker.close()
                self.failure = None
                return
            with suppress(Exception):  # the failure itself, or pybreaker's word that it has opened
                self._breaker.call(replay)
            self.failure = failure
            if was != self._breaker.current_state == pybreaker.STATE_OPEN:
                self._next = time.monotonic() + self.rest_seconds
