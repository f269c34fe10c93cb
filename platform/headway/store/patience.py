"""How long and how hard a store is asked again: retries with jitter inside a budget, and a breaker for each bucket.

The budget bounds every request, its retries and its waits; the breaker spares a store that fails every time, and lets
a request through now and then to see whether it is back.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import pybreaker
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

T = TypeVar("T")

FAILURES = 8
"""Failures in a row after which the breaker opens."""
REST_SECONDS = 2.0
"""How long an open breaker keeps requests back [s]."""
FIRST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 5.0
SAID_AFTER_SECONDS = 5.0
"""Waiting longer than this is said once [s]: a person wonders why nothing happens."""


class PassingError(Exception):
    """A failure that may be gone when one asks again; its cause is the failure itself."""


class Breaker:
    """Opens after failures in a row, and closes with the first success.

    Requests run side by side, some for minutes: pybreaker is only told how they went. While it is open one request is
    let through every `REST_SECONDS`, whatever became of the one before.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.answered = self.failed = 0
        """Requests, by how they went; those that it kept back are none."""
        self._breaker = pybreaker.CircuitBreaker(fail_max=FAILURES, reset_timeout=REST_SECONDS, name=name)
        self._lock = threading.Lock()
        self._next = 0.0
        self._last: PassingError | None = None

    @property
    def open(self) -> bool:
        """Whether it keeps requests back."""
        return bool(self._breaker.current_state != pybreaker.STATE_CLOSED)

    def call(self, action: Callable[[], T]) -> T:
        """What `action` returns, if the breaker lets it through.

        Raises:
            PassingError: it does not, or the action failed in passing.
        """
        self._admit()
        try:
            value = action()
        except PassingError as error:
            self._tell(error)
            raise
        except Exception:
            self._tell(None)  # "no such object" is an answer too
            raise
        self._tell(None)
        return value

    def _admit(self) -> None:
        with self._lock:
            if self._breaker.current_state == pybreaker.STATE_CLOSED:
                return
            now = time.monotonic()
            if now < self._next:
                raise PassingError(f"{self._last}; {self.name} failed {FAILURES} times in a row and is left in peace")
            self._next = now + REST_SECONDS
            self._breaker.half_open()

    def _tell(self, outcome: PassingError | None) -> None:
        def replay() -> None:
            if outcome:
                raise outcome

        with self._lock:
            was = self._breaker.current_state
            self.answered += outcome is None
            self.failed += outcome is not None
            if outcome is None and was != pybreaker.STATE_CLOSED:
                self._breaker.close()
                return
            with suppress(pybreaker.CircuitBreakerError, PassingError):
                self._breaker.call(replay)
            self._last = outcome
            if was != self._breaker.current_state == pybreaker.STATE_OPEN:
                self._next = time.monotonic() + REST_SECONDS


@lru_cache
def breaker(name: str) -> Breaker:
    """The breaker of one bucket, shared by all that this process asks of it."""
    made.append(Breaker(name))
    return made[-1]


made: list[Breaker] = []
"""The breakers of this process: what it asked of object stores. A store in a folder has none."""


@dataclass(frozen=True)
class Patience:
    """How one store is asked."""

    name: str
    """Of the bucket, for the breaker and for messages."""
    budget: float
    """For one request with all its retries [s]; only the last try may run beyond it, by its own time-out."""
    _said: threading.Event = field(default_factory=threading.Event)

    def ask(self, action: Callable[[], T]) -> T:
        """What `action` returns, asked again while it fails in passing and there is budget.

        Raises:
            PassingError: the last failure, when the budget is spent.
        """
        guard = breaker(self.name)
        asking = Retrying(
            stop=stop_before_delay(self.budget),
            wait=wait_random_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
            retry=retry_if_exception_type(PassingError),
            before_sleep=self._say,
            reraise=True,
        )
        value: T = asking(guard.call, action)
        return value

    def _say(self, state: RetryCallState) -> None:
        waited = state.seconds_since_start or 0.0
        if waited > SAID_AFTER_SECONDS and not self._said.is_set() and state.outcome:
            self._said.set()
            logging.getLogger("headway").warning(
                "%s does not answer as it should (%s); asking again for up to %.0f s",
                self.name, state.outcome.exception(), self.budget,
            )  # fmt: skip
