"""The last link: requests go to the engine's application straight away, past what Serve does for each of them.

Serve would count, log and name each request, and watch over its connection, all of which other links or vLLM do. What
is Serve's own (`/-/healthz`) goes to Serve. As it counts nothing, the service waits itself for what is in flight before
it has Serve end (`draining`); what comes after that, Serve's HTTP server waits for.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

SERVES = "/-/"
"""Paths of Serve's own begin so."""


class ServeBypass:
    """The link that knows the application, once the replica has made it."""

    application: ASGIApp | None = None
    """Of this process, which has one."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is Serve's way to the application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        straight = scope["type"] == "http" and not scope["path"].startswith(SERVES)
        app = ServeBypass.application if straight else None
        await (app or self.app)(scope, receive, send)
