"""Write timeout: ends a response whose client does not read it, because it would keep its slot of the engine.

Once all buffers on the way are full, `send` waits, so memory is bounded; but the engine's slot waits with it.
"""

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.events.serving_events import RequestUnread
from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.request_context import context_of
from headway.serve.telemetry_sinks import TelemetrySinks

CHECKS = 4
"""Checks of a response within one timeout."""


class WriteTimeout(HttpMiddleware):
    """Middleware that cancels a response of which the client reads nothing for too long."""

    def __init__(self, app: ASGIApp, timeout_seconds: float, sinks: TelemetrySinks) -> None:
        """`timeout_seconds`: how long a piece of a response may wait for its client [s]."""
        super().__init__(app)
        self.timeout_seconds, self.sinks = timeout_seconds, sinks

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; cancel it if its response is not read."""
        loop, response = asyncio.get_running_loop(), context_of(scope).response
        unread = False
        timer: asyncio.TimerHandle

        def check() -> None:
            """Check how long a piece has waited: a timer for each piece would cost more than the piece."""
            nonlocal timer, unread
            since = response.sending_since
            if since is not None and time.monotonic() - since >= self.timeout_seconds:
                unread = True
                timeout.reschedule(loop.time())
            else:
                timer = loop.call_later(self.timeout_seconds / CHECKS, check)

        timer = loop.call_later(self.timeout_seconds / CHECKS, check)
        try:
            async with asyncio.timeout(None) as timeout:
                await self.app(scope, receive, send)
        except TimeoutError:
            if not timeout.expired():
                raise
        finally:
            timer.cancel()
            if unread:  # logged here, because Ray Serve may catch the cancellation
                request_id = context_of(scope).request_id
                self.sinks.log.write(RequestUnread(request=request_id, seconds=self.timeout_seconds))
