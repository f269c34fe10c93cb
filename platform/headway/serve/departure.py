"""A client that goes away: whoever computes its answer is to hear of it, and stop."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = "x-request-disconnect-disabled"
"""Tells Serve to leave it to the application, here vLLM, which aborts the request at once; Serve lets it run on."""


class Departure:
    """The link that has vLLM itself watch over the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            headers = MutableHeaders(raw=list(scope["headers"]))
            headers[HEADER] = "?1"
            scope = {**scope, "headers": headers.raw}
        await self.app(scope, receive, send)
