"""Deadlines that clients set: the engine drops work that no client can use any more.

When the deadline passes, the application sees a disconnect, at which vLLM aborts the request. The client gets a 504, or
an error as the last event of a stream that has started.
"""

import asyncio
import math
from collections.abc import Awaitable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.request_context import DEADLINE_EXCEEDED, context_of

TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
"""How long the client waits for the whole response [s]. Ray Serve knows the header too, but responds in plain text."""


class Deadline(HttpMiddleware):
    """Middleware that ends a request whose deadline has passed."""

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on until its deadline, if it has one; an invalid one is refused with 400."""
        text = Headers(scope=scope).get(TIMEOUT_HEADER)
        if text is None:
            return self.app(scope, receive, send)
        seconds = _seconds(text)
        if seconds is None:
            message = f"{TIMEOUT_HEADER} must be a number of seconds above 0, not {text[:32]!r}."
            raise ApiError(400, message, kind=INVALID_REQUEST, code="invalid_timeout")
        headers = MutableHeaders(raw=list(scope["headers"]))
        del headers[TIMEOUT_HEADER]
        return self._run({**scope, "headers": headers.raw}, receive, send, seconds)

    async def _run(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        """Run the application; at the deadline, disconnect it and send the client an error."""
        expired = asyncio.Event()

        async def receive_or_expire() -> Message:
            """The client's next message, or a disconnect at the deadline."""
            incoming, expiry = asyncio.ensure_future(receive()), asyncio.ensure_future(expired.wait())
            try:
                await asyncio.wait({incoming, expiry}, return_when=asyncio.FIRST_COMPLETED)
                return incoming.result() if incoming.done() else {"type": "http.disconnect"}
            finally:
                for task in (incoming, expiry):
                    task.cancel()

        context = context_of(scope)
        task = asyncio.ensure_future(self.app(scope, receive_or_expire, send))
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done() or context.response.is_ending:
                await task
                return
            expired.set()
            context.problem = DEADLINE_EXCEEDED
            await context.response.fail(_late(seconds))
            with suppress(Exception):  # the client has its response, so the application's error does not matter
                await task
        finally:
            task.cancel()


def _late(seconds: float) -> ApiError:
    message = f"The response was not complete after {seconds:g} s ({TIMEOUT_HEADER})."
    return ApiError(504, message, kind="timeout_error", code=DEADLINE_EXCEEDED)


def _seconds(text: str) -> float | None:
    """Parse a positive, finite number of seconds; None if `text` is none."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
