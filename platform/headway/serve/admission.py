"""Shedding load before queues grow: what could not be begun soon is refused at once, and told when to come again.

Requests in flight are counted here, in front of the engine: at most `streams` are computed at a time, at most `queue`
more wait. When to come again is computed from how fast answers were finished lately.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.refusal import refusal
from headway.serve.request_context import context_of

WINDOW = 64
"""Answers by which the rate is reckoned."""
LEAST_SECONDS, MOST_SECONDS = 1, 60
"""Bounds of Retry-After [s]."""


class Load:
    """How much is in flight, and how fast it gets done."""

    def __init__(self, streams: int, queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`streams` are computed at a time, `queue` more may wait."""
        self.streams, self.queue, self._clock = streams, queue, clock
        self.flying = 0
        self._finished: deque[float] = deque(maxlen=WINDOW)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.flying >= self.streams + self.queue

    def begin(self) -> None:
        """One more is in flight."""
        if not self.flying:  # how fast it was before a pause says nothing
            self._finished.clear()
        self.flying += 1

    def finish(self) -> None:
        """One was answered, or its client has gone."""
        self.flying -= 1
        self._finished.append(self._clock())

    def retry_after(self) -> int:
        """In how many seconds there is room, at the rate of late: for half of the queue, lest all come back at once."""
        if len(self._finished) < 2:
            return LEAST_SECONDS
        took = self._clock() - self._finished[0]
        each = took / len(self._finished)
        return min(MOST_SECONDS, max(LEAST_SECONDS, math.ceil(each * (self.flying - self.streams - self.queue // 2))))


class Admission:
    """The link that lets in what can be begun soon."""

    def __init__(self, app: ASGIApp, load: Load) -> None:
        self.app, self.load = app, load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429; what does not ask the engine (GET) always passes."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.load.full:
            seconds = self.load.retry_after()
            answer = refusal(
                429,
                f"The service has more requests than it can begin soon. Try again in {seconds} s.",
                kind="overloaded_error",
                code="overloaded",
                headers={"Retry-After": str(seconds)},
            )
            await answer(scope, receive, send)
            return
        with ExitStack() as place:
            self.load.begin()
            place.callback(self.load.finish)

            async def leave(_: Message) -> None:
                """Free before the client hears the end: it may ask again at once."""
                place.close()

            context_of(scope).answer.at_end.append(leave)
            await self.app(scope, receive, send)
