"""Validation of request bodies: refuses with a clear message what no engine can process.

vLLM checks fields one by one, and reports some invalid requests as its own failure. This module checks the body as a
whole: it is a JSON object, its integers fit into 64 bits, and it asks for few enough choices. The engine would start
all choices at once, and all other requests would wait behind them.
"""

import re
from typing import Any

from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.middleware.request_body import replay
from headway.serve.openai_error import INVALID_REQUEST, error_response
from headway.serve.routes import route_of
from headway.serve.tenants.estimate import count_choices

LONG_NUMBER = re.compile(rb"\d{19}")
"""A body without so many digits in a row holds no integer that is too large."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Validation:
    """Middleware that lets only plausible bodies pass. It must be inside `RequestBody`."""

    def __init__(self, app: ASGIApp, max_choices: int) -> None:
        """`max_choices`: most choices of one request."""
        self.app, self.max_choices = app, max_choices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 400 or 413."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        max_bytes = route_of(scope).max_body_bytes
        if max_bytes is not None and len(body) > max_bytes:
            error = f"The request is larger than {max_bytes} bytes, the limit of {scope['path']}. Send less at once."
            response = error_response(413, error, kind=INVALID_REQUEST, code="request_too_large")
            await response(scope, receive, send)
            return
        if problem := self._problem(body):
            response = error_response(400, problem, kind=INVALID_REQUEST, code="invalid_body")
            await response(scope, receive, send)
            return
        await self.app(scope, replay(message, receive), send)

    def _problem(self, body: bytes) -> str | None:
        """Describe what is wrong with a body; None if nothing is."""
        try:
            request = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            return f"The body is not valid JSON: {error}"
        if not isinstance(request, dict):
            return "The body is not a JSON object."
        if LONG_NUMBER.search(body) and _exceeds_int64(request):
            return "A number in the body does not fit into 64 bits."
        if (count := count_choices(request)) > self.max_choices:
            return f"The request asks for {count} choices (prompts times n); at most {self.max_choices} are allowed."
        return None


def _exceeds_int64(value: Any) -> bool:
    """Whether a JSON value holds an integer that does not fit into 64 bits."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, int) and not INT64_MIN <= item <= INT64_MAX:
            return True
    return False
