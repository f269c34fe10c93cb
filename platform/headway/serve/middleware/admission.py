"""Admission control: refuses requests at once that would wait too long, and says when to retry."""

from starlette.types import ASGIApp, Scope

from headway.serve.capacity import Capacity
from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.openai_error import ApiError
from headway.serve.request_context import context_of
from headway.serve.routes import HttpRoute


class Admission(RequestCheck):
    """Middleware that lets a request pass if the engine can start it soon."""

    def __init__(self, app: ASGIApp, capacity: Capacity) -> None:
        super().__init__(app)
        self.capacity = capacity

    def applies(self, route: HttpRoute) -> bool:
        """Whether its requests need the engine."""
        return route.takes_body

    def check(self, scope: Scope) -> None:
        """Count the request until its end, or refuse it with 429."""
        if self.capacity.full:
            seconds = self.capacity.retry_after()
            message = f"The service is overloaded. Try again in {seconds} s."
            headers = {"Retry-After": str(seconds)}
            raise ApiError(429, message, kind="overloaded_error", code="overloaded", headers=headers)
        self.capacity.admit()
        # It ends before the client gets the last piece: the client may send its next request at once.
        context_of(scope).response.on_end.append(self._finish)

    async def _finish(self) -> None:
        self.capacity.finish()
