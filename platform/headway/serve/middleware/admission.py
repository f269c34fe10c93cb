"""Admission control: refuses requests at once that would wait too long, and says when to retry.

The middleware counts requests in flight: the engine computes `streams` at a time, and `queue` more may wait. The time
to retry follows from the rate at which recent requests finished.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.openai_error import error_response
from headway.serve.request_context import context_of

WINDOW = 64
"""Number of recent requests that the rate is computed from."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1, 60
"""Bounds of Retry-After [s]."""


class Load:
    """Number of requests in flight, and the rate at which they finish."""

    def __init__(self, streams: int, queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`streams` requests are computed at a time, `queue` more may wait."""
        self.streams, self.queue, self._clock = streams, queue, clock
        self.in_flight = 0
        self._finish_times: deque[float] = deque(maxlen=WINDOW)

    @property
    def full(self) -> bool:
        """Whether one more request would be too many."""
        return self.in_flight >= self.streams + self.queue

    def begin(self) -> None:
        """Count a request that starts."""
        if not self.in_flight:  # the rate before a pause means nothing now
            self._finish_times.clear()
        self.in_flight += 1

    def finish(self) -> None:
        """Count a request that got its response or whose client left."""
        self.in_flight -= 1
        self._finish_times.append(self._clock())

    def retry_after(self) -> int:
        """Seconds until half of the queue is free at the recent rate, so that clients do not all return at once."""
        if len(self._finish_times) < 2:
            return MIN_RETRY_SECONDS
        seconds_each = (self._clock() - self._finish_times[0]) / len(self._finish_times)
        excess = self.in_flight - self.streams - self.queue // 2
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, math.ceil(seconds_each * excess)))


class Admission:
    """Middleware that lets a request pass if the engine can start it soon."""

    def __init__(self, app: ASGIApp, load: Load) -> None:
        self.app, self.load = app, load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 429. A GET always passes: it needs no engine."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.load.full:
            await _overloaded(self.load.retry_after())(scope, receive, send)
            return
        with ExitStack() as stack:
            self.load.begin()
            stack.callback(self.load.finish)

            async def finish(_: Message) -> None:
                """Finish before the client gets the last piece: it may send its next request at once."""
                stack.close()

            context_of(scope).response.on_end.append(finish)
            await self.app(scope, receive, send)


def _overloaded(retry_seconds: int) -> JSONResponse:
    message = f"The service is overloaded. Try again in {retry_seconds} s."
    headers = {"Retry-After": str(retry_seconds)}
    return error_response(429, message, kind="overloaded_error", code="overloaded", headers=headers)
