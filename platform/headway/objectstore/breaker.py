"""Circuit breakers that threads and tasks share, built on pybreaker's states."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pybreaker

from headway.errors import TransientError

T = TypeVar("T")


class CircuitBreaker:
    """Opens after a number of failures in a row and closes at the first success.

    While it is open it allows one probe per `reset_seconds`, even if the last probe still runs: a request may take
    minutes.
    """

    def __init__(self, name: str, max_failures: int, reset_seconds: float) -> None:
        """`name` is the upstream for messages; the circuit opens after `max_failures` failures in a row."""
        self.name, self.max_failures, self.reset_seconds = name, max_failures, reset_seconds
        self._breaker = pybreaker.CircuitBreaker(fail_max=max_failures, reset_timeout=reset_seconds, name=name)
        self._lock = threading.Lock()
        self._next_probe = 0.0
        self.successes = self.failures = 0
        """Results of all requests; a request that the breaker rejects is neither."""
        self.last_failure: Exception | None = None
        """The last failure, if no request has succeeded since."""

    @property
    def closed(self) -> bool:
        """Whether all requests are allowed."""
        return self._breaker.current_state == pybreaker.STATE_CLOSED

    def allow(self) -> bool:
        """Whether the next request may be sent: always if closed, else as a probe."""
        with self._lock:
            if self.closed:
                return True
            now = time.monotonic()
            if now < self._next_probe:
                return False
            self._next_probe = now + self.reset_seconds
            self._breaker.half_open()
            return True

    def record(self, failure: Exception | None) -> None:
        """Record the result of an allowed request: its `failure`, or None for success."""

        def replay() -> None:
            if failure:
                raise failure

        with self._lock:
            state = self._breaker.current_state
            self.successes += failure is None
            self.failures += failure is not None
            if failure is None and state != pybreaker.STATE_CLOSED:
                self._breaker.close()
                self.last_failure = None
                return
            with suppress(Exception):  # the failure itself, or pybreaker's error that the circuit has opened
                self._breaker.call(replay)
            self.last_failure = failure
            if state != self._breaker.current_state == pybreaker.STATE_OPEN:
                self._next_probe = time.monotonic() + self.reset_seconds

    def call(self, action: Callable[[], T]) -> T:
        """Return the result of `action` and record it. Only a `TransientError` counts as a failure.

        Raises:
            TransientError: the circuit is open, or the action raised it.
        """
        if not self.allow():
            raise TransientError(
                f"{self.last_failure}; {self.name} failed {self.max_failures} times in a row: circuit open, "
                f"one probe every {self.reset_seconds:g} s"
            )
        try:
            result = action()
        except TransientError as error:
            self.record(error)
            raise
        except Exception:
            self.record(None)  # "no such object" is an answer too
            raise
        self.record(None)
        return result
