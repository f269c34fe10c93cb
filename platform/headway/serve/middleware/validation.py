"""Validation of request bodies: refuses with a clear message what no engine can process.

vLLM checks fields one by one, and reports some invalid requests as its own failure. This module checks the body as a
whole: it is a JSON object, its integers fit into 64 bits, and it asks for few enough choices. The engine would start
all choices at once, and all other requests would wait behind them.
"""

import re
from typing import Any

from starlette.types import ASGIApp, Scope

from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.request_body import RequestBody
from headway.serve.request_context import body_of
from headway.serve.routes import HttpRoute, route_of
from headway.serve.tenants.estimate import count_choices

LONG_NUMBER = re.compile(rb"\d{19}")
"""A body without so many digits in a row holds no integer that is too large."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Validation(RequestCheck):
    """Middleware that lets only plausible bodies pass. It must be inside `Buffering`."""

    def __init__(self, app: ASGIApp, max_choices: int) -> None:
        """`max_choices`: most choices of one request."""
        super().__init__(app)
        self.max_choices = max_choices

    def applies(self, route: HttpRoute) -> bool:
        """Whether its requests have a body."""
        return route.takes_body

    def check(self, scope: Scope) -> None:
        """Refuse an implausible body with 400, and one that is too long for its route with 413."""
        body, max_bytes = body_of(scope), route_of(scope).max_body_bytes
        if max_bytes is not None and len(body.content) > max_bytes:
            error = f"The request is larger than {max_bytes} bytes, the limit of {scope['path']}. Send less at once."
            raise ApiError(413, error, kind=INVALID_REQUEST, code="request_too_large")
        if problem := self._problem(body):
            raise ApiError(400, problem, kind=INVALID_REQUEST, code="invalid_body")

    def _problem(self, body: RequestBody) -> str | None:
        """Describe what is wrong with a body; None if nothing is."""
        fields = body.fields
        if fields is None:
            return body.problem
        if LONG_NUMBER.search(body.content) and _exceeds_int64(fields):
            return "A number in the body does not fit into 64 bits."
        if (count := count_choices(fields)) > self.max_choices:
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
