"""How long and how hard a store is asked again: retries with jitter inside a budget, and a breaker for each bucket.

The budget bounds every request, its retries and its waits; the breaker spares a store that fails every time, and lets
a request through now and then to see whether it is back.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import pybreaker
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

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
    """Opens after failures in a row. Requests run side by side: pybreaker is only told how they went."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES, reset_timeout=REST_SECONDS, state_storage=self._storage, name=name
        )

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
        self._tell(None)
        return value

    def _admit(self) -> None:
        opened = self._storage.opened_at
        if self._breaker.current_state == pybreaker.STATE_OPEN and opened:
            resting = REST_SECONDS - (time.time() - opened.timestamp())
            if resting > 0:
                raise PassingError(f"{self.name} failed {FAILURES} times in a row; asked again in {resting:.1f} s")

    def _tell(self, outcome: PassingError | None) -> None:
        def replay() -> None:
            if outcome:
                raise outcome

        try:
            self._breaker.call(replay)
        except (pybreaker.CircuitBreakerError, PassingError):
            return


@lru_cache
def breaker(name: str) -> Breaker:
    """The breaker of one bucket, shared by all that this process asks of it."""
    return Breaker(name)


@dataclass(frozen=True)
class Patience:
    """How one store is asked."""

    name: str
    """Of the bucket, for the breaker and for messages."""
    budget: float
    """For one request with all its retries [s]; the last try may run its own time-out beyond it."""
    _said: threading.Event = field(default_factory=threading.Event)

    def ask(self, action: Callable[[], T]) -> T:
        """What `action` returns, asked again while it fails in passing and there is budget.

        Raises:
            PassingError: the last failure, when the budget is spent.
        """
        guard = breaker(self.name)
        asking = Retrying(
            stop=stop_after_delay(self.budget),
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
