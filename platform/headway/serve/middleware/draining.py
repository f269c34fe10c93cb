"""Draining: after a request to stop, the service refuses new requests and completes those in flight."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.openai_error import error_response
from headway.serve.routes import route_of
from headway.serve.runtime import ReplicaRuntime

IN_FLIGHT_HEADER = "X-Requests-In-Flight"
"""Header of the 503 that a stopping service responds with: the number of requests that are still running."""
RETRY_SECONDS = 5
"""Retry-After of a refusal [s]."""


class Draining:
    """Middleware that refuses requests once the service is to stop; so `/health` reports that it is not ready."""

    def __init__(self, app: ASGIApp, runtime: ReplicaRuntime) -> None:
        self.app, self.runtime = app, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 503."""
        if scope["type"] != "http" or route_of(scope).open_while_draining:
            await self.app(scope, receive, send)
            return
        if self.runtime.is_draining():
            await self._refusal()(scope, receive, send)
            return
        self.runtime.capacity.open += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.runtime.capacity.open -= 1

    def _refusal(self) -> JSONResponse:
        message = "The service is stopping. Try again."
        in_flight = {IN_FLIGHT_HEADER: str(self.runtime.capacity.open)}
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close", **in_flight}
        return error_response(503, message, kind="service_unavailable_error", code="stopping", headers=headers)
