"""A client that does not read its answer: it would keep its place for as long as it likes, and others would wait.

What it is sent waits with the sender once the buffers on its way are full (so memory is bounded), and with that the
engine's place. Whoever takes nothing for long is treated as one that has gone.
"""

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.request_context import context_of
from headway.serve.telemetry_sinks import TelemetrySinks

LOOKS = 4
"""How often it is looked at a sender within the time."""


class WriteTimeout:
    """The link that ends an answer of which nothing is taken."""

    def __init__(self, app: ASGIApp, most_seconds: float, observed: TelemetrySinks) -> None:
        """`most_seconds` [s]: so long a piece of an answer may wait for its reader."""
        self.app, self.most_seconds, self.observed = app, most_seconds, observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; break its answer off if nobody reads it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        loop, answer = asyncio.get_running_loop(), context_of(scope).answer
        unread = False
        timer: asyncio.TimerHandle

        def look() -> None:
            """See whether a piece waits for long: a timer for each would cost more than the piece."""
            nonlocal timer, unread
            if answer.waits_since is not None and time.monotonic() - answer.waits_since >= self.most_seconds:
                unread = True
                patience.reschedule(loop.time())
            else:
                timer = loop.call_later(self.most_seconds / LOOKS, look)

        timer = loop.call_later(self.most_seconds / LOOKS, look)
        try:
            async with asyncio.timeout(None) as patience:
                await self.app(scope, receive, send)
        except TimeoutError:
            if not patience.expired():
                raise
        finally:
            timer.cancel()
            if unread:  # Serve may take it for its own affair that it was cancelled
                self.observed.log.warning("request.unread", request=context_of(scope).name, seconds=self.most_seconds)
