"""Fallback: another service responds while the engine cannot, for example with a smaller or a quantized model.

The engine and the upstream each have a circuit breaker: after failures in a row it blocks all requests except a probe
from time to time. A request that one of them fails goes to the other once, if the client has received nothing yet.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.objectstore.breaker import CircuitBreaker
from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.middleware.upstream import MAX_FAILURES, REST_SECONDS, Upstream
from headway.serve.openai_error import ApiError
from headway.serve.request_context import context_of
from headway.serve.response_hooks import TentativeResponse
from headway.serve.routes import HttpRoute
from headway.serve.runtime import ReplicaRuntime


class Fallback(HttpMiddleware):
    """Middleware that sends requests to the upstream while the engine cannot respond. It must be inside `Buffering`."""

    def __init__(self, app: ASGIApp, runtime: ReplicaRuntime, url: str) -> None:
        """`url`: base URL of the upstream (`.../v1`)."""
        super().__init__(app)
        self.runtime = runtime
        self.engine_breaker = CircuitBreaker("the engine", MAX_FAILURES, REST_SECONDS)
        self.upstream = Upstream(url, runtime.config.name)

    def applies(self, route: HttpRoute) -> bool:
        """Whether the upstream may respond."""
        return route.has_fallback

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond from the engine, or else from the upstream; refuse with 503 if neither can."""
        is_live = self.runtime.healthy
        if is_live and self.engine_breaker.allow() and await self._respond_from_engine(scope, receive, send):
            return
        if await self.upstream.respond(scope, receive, send):
            return
        if is_live:
            context_of(scope).problem = "unavailable"
            raise _unavailable()
        await self.app(scope, receive, send)  # it waits for the next engine

    async def _respond_from_engine(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Respond from the engine; False if it failed before the client received anything."""
        context = context_of(scope)
        response = context.response
        with TentativeResponse(response) as attempt:
            try:
                await self.app(scope, receive, send)
            except ApiError:  # a refusal is no failure of the engine
                raise
            except Exception as error:
                attempt.failure = error
                if response.status:
                    self.engine_breaker.record(error)
                    raise
                context.report(error)
        self.engine_breaker.record(attempt.failure)
        return attempt.failure is None


def _unavailable() -> ApiError:
    """The error of a request that neither the engine nor the upstream can respond to."""
    seconds = round(REST_SECONDS)
    return ApiError(
        503,
        f"Neither the model nor its fallback can respond now. Try again in {seconds} s.",
        kind="service_unavailable_error",
        code="unavailable",
        headers={"Retry-After": str(seconds)},
    )
