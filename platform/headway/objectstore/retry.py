"""Retries of object store requests: exponential backoff with jitter inside a time budget, and a breaker per bucket."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from headway.errors import TransientError
from headway.objectstore.breaker import CircuitBreaker

T = TypeVar("T")

MAX_FAILURES = 8
"""Failures in a row after which a bucket's circuit opens."""
RESET_SECONDS = 2.0
"""Time between probes while a circuit is open [s]."""
FIRST_WAIT_SECONDS = 0.05
"""Longest wait before the first retry [s]; it doubles with each."""
MAX_WAIT_SECONDS = 5.0
"""Longest wait before any retry [s]."""
WARN_AFTER_SECONDS = 5.0
"""Time of retries after which a warning is logged, once per policy [s]."""

bucket_breakers: dict[str, CircuitBreaker] = {}
"""The circuit breakers of this process by bucket. A store in a folder has none."""


def bucket_breaker(bucket: str) -> CircuitBreaker:
    """The circuit breaker of a bucket, shared by the whole process."""
    known = bucket_breakers.get(bucket)
    return known or bucket_breakers.setdefault(bucket, CircuitBreaker(bucket, MAX_FAILURES, RESET_SECONDS))


@dataclass(frozen=True)
class RetryPolicy:
    """Retries requests to one bucket while they fail transiently."""

    bucket: str
    """Name of the bucket, for its breaker and for messages."""
    budget_seconds: float
    """Time for one request with all its retries [s]. Only the last try may exceed it, by its own time-out."""
    _warned: threading.Event = field(default_factory=threading.Event)

    def call(self, action: Callable[[], T]) -> T:
        """Return the result of `action`; repeat it after a `TransientError` while the budget lasts.

        Raises:
            TransientError: the last failure, once the budget is spent.
        """
        retrying = Retrying(
            stop=stop_before_delay(self.budget_seconds),
            wait=wait_random_exponential(FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS),
            retry=retry_if_exception_type(TransientError),
            before_sleep=self._warn,
            reraise=True,
        )
        result: T = retrying(bucket_breaker(self.bucket).call, action)
        return result

    def _warn(self, state: RetryCallState) -> None:
        waited = state.seconds_since_start or 0.0
        if waited > WARN_AFTER_SECONDS and not self._warned.is_set() and state.outcome:
            self._warned.set()
            logging.getLogger("headway").warning(
                "%s fails (%s); retrying for up to %.0f s", self.bucket, state.outcome.exception(), self.budget_seconds
            )
