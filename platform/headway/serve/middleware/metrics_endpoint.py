"""Metrics endpoint: the metrics of this process, for Prometheus."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.routes import HttpRoute, Responder
from headway.serve.telemetry_sinks import TelemetrySinks


class MetricsEndpoint(HttpMiddleware):
    """Middleware that responds to scrapes."""

    def __init__(self, app: ASGIApp, sinks: TelemetrySinks) -> None:
        super().__init__(app)
        self._metrics: ASGIApp = sinks.metrics.asgi_app()

    def applies(self, route: HttpRoute) -> bool:
        """Whether this is the route of the metrics."""
        return route.responder is Responder.METRICS

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Respond with the metrics."""
        return self._metrics(scope, receive, send)
