"""A deadline that a client sets: work that nobody could use any more is dropped, in the engine, too.

When it has passed, the application is told that the client has gone, at which vLLM aborts the request; the client gets
an error that says so: a 504 before the first byte, after that the last event of its stream.
"""

import asyncio
import json
import math
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.refusal import refusal
from headway.serve.request_context import LATE, context_of

HEADER = "X-Request-Timeout-Seconds"
"""How long the client will wait for the whole answer [s]. Serve knows it, too, and would answer with plain text."""
KIND = "timeout_error"


class Deadline:
    """The link that ends what has taken too long."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on for as long as it says."""
        given = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        if given is None:
            await self.app(scope, receive, send)
            return
        seconds = _seconds(given)
        if seconds is None:
            told = f"{HEADER} is a number of seconds above 0, not {given[:32]!r}."
            await refusal(400, told, kind="invalid_request_error", code="invalid_timeout")(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        del headers[HEADER]
        await _Timed(self.app, seconds).run({**scope, "headers": headers.raw}, receive, send)


class _Timed:
    """One request with a deadline."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds
        self.passed = asyncio.Event()
        self.begun = self.streams = self.ended = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; at the deadline tell it that the client has gone, and the client why."""

        async def listen() -> Message:
            """What the client sends; once the deadline has passed, that it has gone."""
            heard, passed = asyncio.ensure_future(receive()), asyncio.ensure_future(self.passed.wait())
            try:
                await asyncio.wait({heard, passed}, return_when=asyncio.FIRST_COMPLETED)
                return heard.result() if heard.done() else {"type": "http.disconnect"}
            finally:
                for each in (heard, passed):
                    each.cancel()

        async def answer(message: Message) -> None:
            """Pass on what the application sends, until the deadline."""
            if self.passed.is_set():
                return
            if message["type"] == "http.response.start":
                self.begun = True
                self.streams = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        running = asyncio.ensure_future(self.app(scope, listen, answer))
        try:
            await asyncio.wait({running}, timeout=self.seconds)
            if running.done() or self.ended:
                await running
                return
            self.passed.set()
            context_of(scope).problem = LATE
            await self._tell(scope, receive, send)
            with suppress(Exception):  # it ends as it likes: the client has its answer
                await running
        finally:
            running.cancel()

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = f"The answer was not complete after {self.seconds:g} s ({HEADER})."
        if not self.begun:
            await refusal(504, told, kind=KIND, code=LATE)(scope, receive, send)
        elif self.streams:
            error = {"error": {"message": told, "type": KIND, "param": None, "code": LATE}}
            await send({"type": "http.response.body", "body": f"data: {json.dumps(error)}\n\n".encode()})


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
