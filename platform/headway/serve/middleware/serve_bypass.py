"""Bypass of Ray Serve's request handler: requests go straight to the application.

Ray Serve would count, log and name each request and watch its connection; other middleware or vLLM does all of it.
Because Ray Serve then counts nothing, the service itself waits for requests in flight before it deletes the deployment
(`draining`); Ray Serve's HTTP server waits for requests that arrive after that.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.routes import route_of
from headway.serve.runtime import ReplicaRuntime


class ServeBypass:
    """Innermost middleware: calls the application directly once the replica has built it."""

    def __init__(self, app: ASGIApp, runtime: ReplicaRuntime) -> None:
        """`app`: Ray Serve's request handler."""
        self.app, self.runtime = app, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, to Ray Serve if the route is its own."""
        bypass = scope["type"] == "http" and not route_of(scope).by_ray_serve
        app = self.runtime.application if bypass else None
        await (app or self.app)(scope, receive, send)
