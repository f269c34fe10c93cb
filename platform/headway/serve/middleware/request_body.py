"""Request bodies: read whole before the request counts anywhere, so a slow sender takes no slot of the engine.

Inner middleware gets the body in one message, at once.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.memory_budget import Lease, MemoryBudget
from headway.serve.openai_error import INVALID_REQUEST, error_response
from headway.serve.request_context import context_of

CLOSE_CONNECTION = {"Connection": "close"}
"""Headers of a response to a body that was not read to its end: the rest would be parsed as the next request."""
UNMETERED_BYTES = 64 * 1024
"""Part of each body that the budget does not count [bytes]: short requests pass even when long ones exhaust it."""
RETRY_SECONDS = 1
"""Retry-After when the budget is exhausted [s]; memory is soon free again."""


class RequestBody:
    """Middleware that reads the body of a POST, within limits of size, time and memory."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_seconds: float, budget: MemoryBudget) -> None:
        """`budget`: shared by all bodies, for what is longer than `UNMETERED_BYTES`."""
        self.app, self.max_bytes, self.timeout_seconds, self.budget = app, max_bytes, timeout_seconds, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or respond with 413, 429 or 408. Drops it if the client left."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds
        with self.budget.lease() as lease:  # until the response ends: the application keeps the body that long
            try:
                async with asyncio.timeout_at(deadline):
                    body = await self._read(Headers(scope=scope), receive, lease)
            except TimeoutError:
                await self._too_slow()(scope, receive, send)
                return
            if isinstance(body, _RejectedBody):
                lease.release()
                if body.more_comes:
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(deadline):
                            await _discard_rest(receive)
                await body.response(scope, receive, send)
            elif body is not None:
                context_of(scope).arrival = time.perf_counter()  # the client's upload is not part of the latency
                whole: Message = {"type": "http.request", "body": body, "more_body": False}
                await self.app(scope, replay(whole, receive), send)

    async def _read(self, headers: Headers, receive: Receive, lease: Lease) -> "bytes | _RejectedBody | None":
        """Read the body; rejects one that exceeds a limit or announces that it will. None: the client left."""
        length = headers.get("Content-Length", "")
        if length.isdecimal() and int(length[:20]) > self.max_bytes:  # otherwise the bytes that arrive count
            return _RejectedBody(self._too_large(), more_comes=headers.get("Expect", "").lower() != "100-continue")
        body = bytearray()  # a list of many small pieces would take more memory
        while (more := _append(await receive(), body)) is not None:
            if len(body) > self.max_bytes:
                return _RejectedBody(self._too_large(), more_comes=more)
            if not lease.grow(len(body) - UNMETERED_BYTES):
                return _RejectedBody(_over_budget(), more_comes=more)
            if not more:
                return bytes(body)
        return None

    def _too_slow(self) -> JSONResponse:
        message = f"The request was not complete after {self.timeout_seconds:g} s. Send it faster or send less."
        return error_response(408, message, kind="timeout_error", code="request_timeout", headers=CLOSE_CONNECTION)

    def _too_large(self) -> JSONResponse:
        message = f"The request is larger than {self.max_bytes} bytes. Send less at once."
        return error_response(413, message, kind=INVALID_REQUEST, code="request_too_large", headers=CLOSE_CONNECTION)


def _over_budget() -> JSONResponse:
    message = f"The service has no memory left for a request of this length. Try again in {RETRY_SECONDS} s."
    headers = {**CLOSE_CONNECTION, "Retry-After": str(RETRY_SECONDS)}
    return error_response(429, message, kind="overloaded_error", code="overloaded", headers=headers)


@dataclass(frozen=True)
class _RejectedBody:
    """A body that exceeds a limit. Not an exception, because its traceback would keep the bytes read so far."""

    response: JSONResponse
    more_comes: bool
    """Whether the client sends the rest without waiting for the response."""


async def _discard_rest(receive: Receive) -> None:
    """Read the rest of a body: closing a connection while the client still sends can lose the response."""
    while _append(await receive(), bytearray()):
        pass


def _append(message: Message, body: bytearray) -> bool | None:
    """Append a message to `body`. Returns whether more comes; None if the client left.

    This is a function so that the caller keeps no reference to the message while it waits for the next one.
    """
    if message["type"] != "http.request":
        return None
    body += message.get("body", b"")
    return bool(message.get("more_body", False))


def replay(message: Message, receive: Receive) -> Receive:
    """Make a `receive` that returns `message` first, and then what `receive` does, so that a disconnect arrives."""
    pending = [message]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
