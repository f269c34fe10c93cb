"""Bypass of Ray Serve's request handler: requests go straight to the application."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.patches.ray_patches import bypass_request_handler
from headway.serve.request_context import context_of
from headway.serve.routes import HttpRoute, Responder
from headway.serve.runtime import ReplicaRuntime


class ServeBypass(HttpMiddleware):
    """Innermost middleware: calls the application directly once the replica has built it."""

    def __init__(self, app: ASGIApp, runtime: ReplicaRuntime) -> None:
        """`app`: Ray Serve's request handler."""
        super().__init__(app)
        self.runtime = runtime

    def applies(self, route: HttpRoute) -> bool:
        """Whether the application responds, not Ray Serve."""
        return route.responder is Responder.APPLICATION

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Call the application; it receives the body that was read before."""
        body = context_of(scope).body
        app = bypass_request_handler(self.app, self.runtime.application)
        return app(scope, receive if body is None else body.replay(receive), send)
