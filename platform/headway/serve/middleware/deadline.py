"""Deadlines that clients set: the engine drops work that no client can use any more.

When the deadline passes, the application sees a disconnect, at which vLLM aborts the request. The client gets a 504, or
an error as the last event of a stream that has started.
"""

import asyncio
import math
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.openai_error import INVALID_REQUEST, error_event, error_response
from headway.serve.request_context import DEADLINE_EXCEEDED, context_of

TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
"""How long the client waits for the whole response [s]. Ray Serve knows the header too, but responds in plain text."""
KIND = "timeout_error"


class Deadline:
    """Middleware that ends a request whose deadline has passed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on until its deadline, if it has one."""
        text = Headers(scope=scope).get(TIMEOUT_HEADER) if scope["type"] == "http" else None
        if text is None:
            await self.app(scope, receive, send)
            return
        seconds = _seconds(text)
        if seconds is None:
            message = f"{TIMEOUT_HEADER} must be a number of seconds above 0, not {text[:32]!r}."
            response = error_response(400, message, kind=INVALID_REQUEST, code="invalid_timeout")
            await response(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        del headers[TIMEOUT_HEADER]
        await _TimedRequest(self.app, seconds).run({**scope, "headers": headers.raw}, receive, send)


class _TimedRequest:
    """One request with a deadline."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds
        self.expired = asyncio.Event()
        self.started = self.is_stream = self.complete = False
        """State of the response."""

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; at the deadline, disconnect it and send the client an error."""

        async def receive_or_expire() -> Message:
            """The client's next message, or a disconnect at the deadline."""
            incoming, expiry = asyncio.ensure_future(receive()), asyncio.ensure_future(self.expired.wait())
            try:
                await asyncio.wait({incoming, expiry}, return_when=asyncio.FIRST_COMPLETED)
                return incoming.result() if incoming.done() else {"type": "http.disconnect"}
            finally:
                for task in (incoming, expiry):
                    task.cancel()

        async def send_until_expiry(message: Message) -> None:
            """Forward what the application sends before the deadline, and drop the rest."""
            if self.expired.is_set():
                return
            if message["type"] == "http.response.start":
                self.started = True
                media_type = Headers(raw=message["headers"]).get("content-type", "")
                self.is_stream = media_type.startswith("text/event-stream")
            self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        task = asyncio.ensure_future(self.app(scope, receive_or_expire, send_until_expiry))
        try:
            await asyncio.wait({task}, timeout=self.seconds)
            if task.done() or self.complete:
                await task
                return
            self.expired.set()
            context_of(scope).problem = DEADLINE_EXCEEDED
            await self._send_error(scope, receive, send)
            with suppress(Exception):  # the client has its response, so the application's error does not matter
                await task
        finally:
            task.cancel()

    async def _send_error(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The response was not complete after {self.seconds:g} s ({TIMEOUT_HEADER})."
        if not self.started:
            await error_response(504, message, kind=KIND, code=DEADLINE_EXCEEDED)(scope, receive, send)
        elif self.is_stream:
            event = error_event(message, kind=KIND, code=DEADLINE_EXCEEDED)
            await send({"type": "http.response.body", "body": event})


def _seconds(text: str) -> float | None:
    """Parse a positive, finite number of seconds; None if `text` is none."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
