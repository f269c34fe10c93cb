"""Write timeout: ends a response whose client does not read it, because it would keep its slot of the engine.

Once all buffers on the way are full, `send` waits, so memory is bounded; but the engine's slot waits with it.
"""

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.events.serving_events import RequestUnread
from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.request_context import context_of
from headway.serve.response_hooks import ResponseHooks
from headway.serve.telemetry_sinks import TelemetrySinks

CHECKS = 4
"""Checks of a response within one timeout."""


class WriteTimeout(HttpMiddleware):
    """Middleware that cancels a response of which the client reads nothing for too long."""

    def __init__(self, app: ASGIApp, timeout_seconds: float, sinks: TelemetrySinks) -> None:
        """`timeout_seconds`: how long a piece of a response may wait for its client [s]."""
        super().__init__(app)
        self.timeout_seconds, self.sinks = timeout_seconds, sinks
        self._watched: dict[ResponseHooks, asyncio.Timeout] = {}
        self._has_timer = False
        """Whether the next check is scheduled: one timer for all responses costs less than one for each."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; cancel it if its response is not read."""
        context = context_of(scope)
        try:
            async with asyncio.timeout(None) as timeout:
                self._watched[context.response] = timeout
                if not self._has_timer:
                    self._schedule_check()
                await self.app(scope, receive, send)
        except TimeoutError:
            if not timeout.expired():
                raise
        finally:
            del self._watched[context.response]
            if timeout.expired():  # logged here, because Ray Serve may catch the cancellation
                self.sinks.log.write(RequestUnread(request=context.request_id, seconds=self.timeout_seconds))

    def _schedule_check(self) -> None:
        asyncio.get_running_loop().call_later(self.timeout_seconds / CHECKS, self._check)
        self._has_timer = True

    def _check(self) -> None:
        """Expire the timeouts of responses of which a piece has waited too long."""
        now, loop = time.monotonic(), asyncio.get_running_loop()
        for response, timeout in self._watched.items():
            since = response.sending_since
            if since is not None and now - since >= self.timeout_seconds and not timeout.expired():
                timeout.reschedule(loop.time())
        self._has_timer = False
        if self._watched:
            self._schedule_check()
