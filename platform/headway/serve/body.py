"""The body of a request, read whole before anything is counted: whoever sends slowly takes nobody's place.

What stands behind this link gets a body in one piece, at once.
"""

import asyncio
import time
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.call import call_of
from headway.serve.refusal import refusal

CLOSE = {"Connection": "close"}
"""What is left of the body would be taken for the next request."""


class Body:
    """The link that waits for all of a POST's body; as long and as much as an endpoint allows."""

    def __init__(self, app: ASGIApp, most_bytes: int, most_seconds: float) -> None:
        self.app, self.most_bytes, self.most_seconds = app, most_bytes, most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on once its body is here; else answer 413 or 408. A client that has gone gets no answer."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self.most_seconds
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            told = f"The request was not complete after {self.most_seconds:g} s. Send it faster, or send less."
            answer = refusal(408, told, kind="timeout_error", code="request_timeout", headers=CLOSE)
            await answer(scope, receive, send)
            return
        except _TooLargeError as large:
            if large.coming:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await _drop(receive)
            told = f"The request is larger than {self.most_bytes} bytes. Send less at once."
            answer = refusal(413, told, kind="invalid_request_error", code="request_too_large", headers=CLOSE)
            await answer(scope, receive, send)
            return
        if body is not None:
            call_of(scope).begun = time.perf_counter()  # how fast a client sends is not how fast it is served
            await self.app(scope, again({"type": "http.request", "body": body, "more_body": False}, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """All of the body; None if the client has gone before.

        Raises:
            _TooLargeError: it is, or says that it will be.
        """
        announced = headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced[:20]) > self.most_bytes:  # no number, or a lie: what comes counts
            raise _TooLargeError(coming=headers.get("Expect", "").lower() != "100-continue")
        body = bytearray()  # many small pieces in a list would take more memory than what they say
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.most_bytes:
                raise _TooLargeError(coming=more)
            if not more:
                return bytes(body)
        return None


class _TooLargeError(Exception):
    """More than is read."""

    def __init__(self, *, coming: bool) -> None:
        """`coming`: the client sends the rest whatever it is told."""
        super().__init__()
        self.coming = coming


async def _drop(receive: Receive) -> None:
    """Hear the rest of a body: a connection that is closed while a client still sends loses the answer on its way."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        pass


def again(message: Message, receive: Receive) -> Receive:
    """A `receive` that tells `message`, and then goes on with `receive`: it still hears when the client goes."""
    told = [message]

    async def listen() -> Message:
        return told.pop() if told else await receive()

    return listen
