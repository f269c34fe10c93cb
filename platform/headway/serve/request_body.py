"""The body of a request, read whole before anything is counted: whoever sends slowly takes nobody's place.

What stands behind this link gets a body in one piece, at once.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.memory_budget import Lease, MemoryBudget
from headway.serve.refusal import refusal
from headway.serve.request_context import context_of

CLOSE = {"Connection": "close"}
"""What is left of the body would be taken for the next request."""
ALWAYS_BYTES = 64 * 1024
"""So much of a body is read even if there is no room for more: short requests go on while others hold on to it."""
AGAIN_SECONDS = 1
"""Bodies come and go fast."""


class RequestBody:
    """The link that waits for all of a POST's body; as long and as much as an endpoint allows."""

    def __init__(self, app: ASGIApp, most_bytes: int, most_seconds: float, room: MemoryBudget) -> None:
        """`room`: for the bodies that are here at a time, as far as they are longer than `ALWAYS_BYTES`."""
        self.app, self.most_bytes, self.most_seconds, self.room = app, most_bytes, most_seconds, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on once its body is here; else answer 413, 429 or 408. Who has gone gets no answer."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self.most_seconds
        with self.room.lease() as share:  # to the end: who answers a request holds on to its body
            try:
                async with asyncio.timeout_at(deadline):
                    body = await self._read(Headers(scope=scope), receive, share)
            except TimeoutError:
                told = f"The request was not complete after {self.most_seconds:g} s. Send it faster, or send less."
                answer = refusal(408, told, kind="timeout_error", code="request_timeout", headers=CLOSE)
                await answer(scope, receive, send)
                return
            if isinstance(body, _Unread):
                share.release()
                if body.coming:
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(deadline):
                            await _drop(receive)
                await body.answer(scope, receive, send)
            elif body is not None:
                context_of(scope).begun = time.perf_counter()  # how fast a client sends is not how fast it is served
                await self.app(scope, again({"type": "http.request", "body": body, "more_body": False}, receive), send)

    async def _read(self, headers: Headers, receive: Receive, share: Lease) -> "bytes | _Unread | None":
        """All of the body, unless it is (or says that it will be) too large, or there is no room for it now.

        None: the client has gone before.
        """
        announced = headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced[:20]) > self.most_bytes:  # no number, or a lie: what comes counts
            return _Unread(self._too_large(), coming=headers.get("Expect", "").lower() != "100-continue")
        body = bytearray()  # many small pieces in a list would take more memory than what they say
        while (more := _put(await receive(), body)) is not None:
            if len(body) > self.most_bytes:
                return _Unread(self._too_large(), coming=more)
            if not share.grow(len(body) - ALWAYS_BYTES):
                return _Unread(_crowded(), coming=more)
            if not more:
                return bytes(body)
        return None

    def _too_large(self) -> JSONResponse:
        told = f"The request is larger than {self.most_bytes} bytes. Send less at once."
        return refusal(413, told, kind="invalid_request_error", code="request_too_large", headers=CLOSE)


def _crowded() -> JSONResponse:
    told = f"There is no room now for one more request of this length. Try again in {AGAIN_SECONDS} s."
    headers = {**CLOSE, "Retry-After": str(AGAIN_SECONDS)}
    return refusal(429, told, kind="overloaded_error", code="overloaded", headers=headers)


@dataclass(frozen=True)
class _Unread:
    """A body that is not read to its end. No error: one would hold on to what was read."""

    answer: JSONResponse
    coming: bool
    """The client sends the rest whatever it is told."""


async def _drop(receive: Receive) -> None:
    """Hear the rest of a body: a connection that is closed while a client still sends loses the answer on its way."""
    while _put(await receive(), bytearray()):
        pass


def _put(message: Message, body: bytearray) -> bool | None:
    """Add what `message` says to `body`; whether more comes, or None: the client has gone.

    A function, lest whoever waits for the next message hold on to this one.
    """
    if message["type"] != "http.request":
        return None
    body += message.get("body", b"")
    return bool(message.get("more_body", False))


def again(message: Message, receive: Receive) -> Receive:
    """A `receive` that tells `message`, and then goes on with `receive`: it still hears when the client goes."""
    told = [message]

    async def listen() -> Message:
        return told.pop() if told else await receive()

    return listen
