"""Admission control: refuses requests at once that would wait too long, and says when to retry.

The middleware counts requests in flight: the engine computes `streams` at a time, and `queue` more may wait. The time
to retry follows from the rate at which recent requests finished.
"""

from contextlib import ExitStack

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.capacity import Capacity
from headway.serve.openai_error import error_response
from headway.serve.request_context import context_of


class Admission:
    """Middleware that lets a request pass if the engine can start it soon."""

    def __init__(self, app: ASGIApp, capacity: Capacity) -> None:
        self.app, self.capacity = app, capacity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 429. A GET always passes: it needs no engine."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.capacity.full:
            await _overloaded(self.capacity.retry_after())(scope, receive, send)
            return
        with ExitStack() as stack:
            self.capacity.admit()
            stack.callback(self.capacity.finish)

            async def finish(_: Message) -> None:
                """Finish before the client gets the last piece: it may send its next request at once."""
                stack.close()

            context_of(scope).response.on_end.append(finish)
            await self.app(scope, receive, send)


def _overloaded(retry_seconds: int) -> JSONResponse:
    message = f"The service is overloaded. Try again in {retry_seconds} s."
    headers = {"Retry-After": str(retry_seconds)}
    return error_response(429, message, kind="overloaded_error", code="overloaded", headers=headers)
