"""Draining: after a request to stop, the service refuses new requests and completes those in flight."""

from starlette.types import ASGIApp, Scope

from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.openai_error import ApiError
from headway.serve.request_context import context_of
from headway.serve.routes import HttpRoute
from headway.serve.runtime import ReplicaRuntime

RETRY_SECONDS = 5
"""Retry-After of a refusal [s]."""


class Draining(RequestCheck):
    """Middleware that refuses requests once the service is to stop; so `/health` reports that it is not ready."""

    def __init__(self, app: ASGIApp, runtime: ReplicaRuntime) -> None:
        super().__init__(app)
        self.runtime = runtime

    def applies(self, route: HttpRoute) -> bool:
        """Whether the route is closed while the service stops."""
        return not route.open_while_draining

    def check(self, scope: Scope) -> None:
        """Count the request until it is over, or refuse it with 503."""
        self.runtime.capacity.open += 1  # before the check: the service waits for every request that passes it
        if self.runtime.draining:
            self.runtime.capacity.open -= 1
            headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
            message = "The service is stopping. Try again."
            raise ApiError(503, message, kind="service_unavailable_error", code="stopping", headers=headers)
        context_of(scope).on_close.append(self._close)

    async def _close(self) -> None:
        self.runtime.capacity.open -= 1
