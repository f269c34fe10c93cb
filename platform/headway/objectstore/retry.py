"""How long and how hard a store is asked again: retries with jitter inside a budget, and a breaker for each bucket.

The budget bounds every request, its retries and its waits; the breaker spares a store that fails every time, and lets
a request through now and then to see whether it is back.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from headway.errors import TransientError
from headway.objectstore.breaker import CircuitBreaker

T = TypeVar("T")

MAX_FAILURES = 8
"""Failures in a row after which the breaker opens."""
REST_SECONDS = 2.0
"""How long an open breaker keeps requests back [s]."""
FIRST_WAIT_SECONDS = 0.05
MAX_WAIT_SECONDS = 5.0
WARN_AFTER_SECONDS = 5.0
"""Waiting longer than this is said once [s]: a person wonders why nothing happens."""


class BucketBreaker:
    """What a bucket is asked through, by all that this process asks of it: its breaker."""

    def __init__(self, name: str) -> None:
        self.breaker = CircuitBreaker(name, MAX_FAILURES, REST_SECONDS)

    def call(self, action: Callable[[], T]) -> T:
        """What `action` returns, if the breaker lets it through.

        Raises:
            PassingError: it does not, or the action failed in passing.
        """
        if not self.breaker.admits():
            name, failure = self.breaker.name, self.breaker.failure
            raise TransientError(f"{failure}; {name} failed {MAX_FAILURES} times in a row and is left in peace")
        try:
            value = action()
        except TransientError as error:
            self.breaker.record(error)
            raise
        except Exception:
            self.breaker.record(None)  # "no such object" is an answer too
            raise
        self.breaker.record(None)
        return value


@lru_cache
def bucket_breaker(name: str) -> BucketBreaker:
    """The guard of one bucket."""
    bucket_breakers.append(BucketBreaker(name))
    return bucket_breakers[-1]


bucket_breakers: list[BucketBreaker] = []
"""The guards of this process: what it asked of object stores. A store in a folder has none."""


@dataclass(frozen=True)
class RetryPolicy:
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
        asking = Retrying(
            stop=stop_before_delay(self.budget),
            wait=wait_random_exponential(FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS),
            retry=retry_if_exception_type(TransientError),
            before_sleep=self._say,
            reraise=True,
        )
        value: T = asking(bucket_breaker(self.name).call, action)
        return value

    def _say(self, state: RetryCallState) -> None:
        waited = state.seconds_since_start or 0.0
        if waited > WARN_AFTER_SECONDS and not self._said.is_set() and state.outcome:
            self._said.set()
            logging.getLogger("headway").warning(
                "%s does not answer as it should (%s); asking again for up to %.0f s",
                self.name, state.outcome.exception(), self.budget,
            )  # fmt: skip
