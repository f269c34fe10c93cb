"""Validation of request bodies: refuses with a clear message what no engine can process, or not within bounds.

vLLM checks fields one by one, reports some invalid requests as its own failure, and takes memory and time without end
for others. This module checks the body as a whole: it is a JSON object, each of its parts is within its bound
(`request_bounds.py`), and it asks for few enough choices. The engine would start all choices at once, and all other
requests would wait behind them.
"""

from starlette.types import ASGIApp, Scope

from headway.serve.bounds.request_bounds import request_problem
from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.request_body import RequestBody
from headway.serve.request_context import body_of
from headway.serve.routes import HttpRoute, route_of
from headway.serve.tenants.estimate import count_choices


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
        if problem := request_problem(fields):
            return problem
        if (count := count_choices(fields)) > self.max_choices:
            return f"The request asks for {count} choices (prompts times n); at most {self.max_choices} are allowed."
        return None
