"""Buffering of request bodies: a body is read whole before the request counts anywhere.

So a slow sender takes no slot of the engine. Inner middleware finds the body in the request's context; `receive` only
tells it that the client has left.
"""

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.bounds.document_bounds import text_problem
from headway.serve.config import ServeConfig
from headway.serve.memory_budget import Lease, MemoryBudget
from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.request_body import RequestBody
from headway.serve.request_context import context_of
from headway.serve.routes import HttpRoute

CLOSE_CONNECTION = {"Connection": "close"}
"""Headers of a response to a body that was not read to its end: the rest would be parsed as the next request."""
UNMETERED_BYTES = 64 * 1024
"""Part of each body that the budget does not count [bytes]: short requests pass even when long ones exhaust it."""
RETRY_SECONDS = 1
"""Retry-After when the budget is exhausted [s]; memory is soon free again."""


class Buffering(HttpMiddleware):
    """Middleware that reads the body of a request, within limits of size, time and memory, and of what it parses to."""

    def __init__(self, app: ASGIApp, config: ServeConfig, budget: MemoryBudget) -> None:
        """`budget`: shared by all bodies, for what is longer than `UNMETERED_BYTES`."""
        super().__init__(app)
        self.max_bytes, self.timeout_seconds = config.max_body_bytes, config.body_timeout_seconds
        self.budget = budget

    def applies(self, route: HttpRoute) -> bool:
        """Whether its requests have a body."""
        return route.takes_body

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or refuse it. Drops it if the client left.

        Raises:
            ApiError: the body exceeds a limit.
        """
        context = context_of(scope)
        with self.budget.lease() as lease:  # until the response ends: the application keeps the body that long
            context.body = await self._read(Headers(scope=scope), receive, lease)
            if context.body is None:
                return
            context.arrival = time.perf_counter()  # the client's upload is not part of the latency
            try:
                if problem := text_problem(context.body.content):
                    raise ApiError(400, f"The body {problem}.", kind=INVALID_REQUEST, code="invalid_body")
                await self.app(scope, receive, send)
            finally:
                context.body = None  # a refusal takes time to arrive, and the lease has ended then

    async def _read(self, headers: Headers, receive: Receive, lease: Lease) -> RequestBody | None:
        """Read the body; None: the client left.

        The rest of a refused body is read and dropped: closing a connection while the client still sends can lose the
        response.

        Raises:
            ApiError: it exceeds a limit or announces that it will (413, 429), or it is too slow (408).
        """
        body = bytearray()  # a list of many small pieces would take more memory
        more: bool | None = True
        refusal = self._announced(headers)
        if refusal and headers.get("Expect", "").lower() == "100-continue":  # the client waits for the response
            raise refusal
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while more:
                    more = _append(await receive(), body)
                    if refusal := refusal or self._excess(len(body), lease):
                        body.clear()
                        lease.release()
        except TimeoutError:
            body.clear()
            refusal = refusal or self._too_slow()
        if refusal:
            raise refusal  # its traceback keeps this frame, and so `body` is empty
        return None if more is None else RequestBody(bytes(body))

    def _announced(self, headers: Headers) -> ApiError | None:
        """Refuse a body that announces too many bytes. Whatever else it announces, the bytes that arrive count."""
        length = headers.get("Content-Length", "")
        return self._too_large() if length.isdecimal() and int(length[:20]) > self.max_bytes else None

    def _excess(self, size: int, lease: Lease) -> ApiError | None:
        """Refuse a body that has become too large, or for which there is no memory."""
        if size > self.max_bytes:
            return self._too_large()
        return None if lease.grow(size - UNMETERED_BYTES) else _over_budget()

    def _too_slow(self) -> ApiError:
        message = f"The request was not complete after {self.timeout_seconds:g} s. Send it faster or send less."
        return ApiError(408, message, kind="timeout_error", code="request_timeout", headers=CLOSE_CONNECTION)

    def _too_large(self) -> ApiError:
        message = f"The request is larger than {self.max_bytes} bytes. Send less at once."
        return ApiError(413, message, kind=INVALID_REQUEST, code="request_too_large", headers=CLOSE_CONNECTION)


def _over_budget() -> ApiError:
    message = f"The service has no memory left for a request of this length. Try again in {RETRY_SECONDS} s."
    headers = {**CLOSE_CONNECTION, "Retry-After": str(RETRY_SECONDS)}
    return ApiError(429, message, kind="overloaded_error", code="overloaded", headers=headers)


def _append(message: Message, body: bytearray) -> bool | None:
    """Append a message to `body`. Returns whether more comes; None if the client left.

    This is a function so that the caller keeps no reference to the message while it waits for the next one.
    """
    if message["type"] != "http.request":
        return None
    body += message.get("body", b"")
    return bool(message.get("more_body", False))
