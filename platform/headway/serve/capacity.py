"""Capacity of a replica: how many requests and bytes it takes at a time, and how many it has now.

The engine computes `streams` requests at a time, and `queue` more may wait. Middleware, the queue in front of the
engine and metrics read their numbers here; vLLM gets the same `streams` from the configuration.
"""

import math
import time
from collections import deque
from collections.abc import Callable

from headway.serve.config import ServeConfig
from headway.serve.memory_budget import MemoryBudget

BUFFERED_BODIES = 64
"""Request bodies of full length that the memory budget holds at a time."""
WINDOW = 64
"""Number of recent requests that the rate is computed from."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1, 60
"""Bounds of Retry-After [s]."""


class Capacity:
    """Limits and counts of requests, and the memory budget of their bodies."""

    def __init__(self, config: ServeConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.streams = config.streams
        """Requests that the engine computes at a time (vLLM's `max-num-seqs`)."""
        self.slots = config.streams + config.streams // 8
        """Requests passed to the engine at a time: more than `streams`, so it has a next one when one ends."""
        self.queue = config.queue
        """Requests that may wait for the engine."""
        self.bodies = MemoryBudget(BUFFERED_BODIES * config.max_body_bytes)
        """Memory of request bodies."""
        self.open = 0
        """Requests that are being served, whatever their route."""
        self.admitted = 0
        """Requests that need the engine: admitted, and not at their end."""
        self.running = 0
        """Requests that hold a slot of the engine."""
        self.waiting = 0
        """Requests that wait for a slot of the engine."""
        self._finish_times: deque[float] = deque(maxlen=WINDOW)

    @property
    def full(self) -> bool:
        """Whether one more request for the engine would be too many."""
        return self.admitted >= self.streams + self.queue

    def admit(self) -> None:
        """Count a request for the engine."""
        if not self.admitted:  # the rate before a pause means nothing now
            self._finish_times.clear()
        self.admitted += 1

    def finish(self) -> None:
        """Count an admitted request that got its response or whose client left."""
        self.admitted -= 1
        self._finish_times.append(self._clock())

    def retry_after(self) -> int:
        """Seconds until half of the queue is free at the recent rate, so that clients do not all return at once."""
        if len(self._finish_times) < 2:
            return MIN_RETRY_SECONDS
        seconds_each = (self._clock() - self._finish_times[0]) / len(self._finish_times)
        excess = self.admitted - self.streams - self.queue // 2
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, math.ceil(seconds_each * excess)))
