"""Base of the middleware. A subclass sees HTTP requests for the routes that it applies to; anything else passes it.

There are two kinds. A check only looks at a request before it passes: it implements `check`. Any other middleware
implements `handle`, and passes the request on by `self.app(scope, receive, send)`. Both refuse a request by raising an
`ApiError`. Whatever happens on the way back is a hook on the response (`context_of(scope).response`).
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.routes import ROUTES, UNKNOWN, HttpRoute

POLICY_VIOLATION = 1008
"""WebSocket close code. A server turns it into a 403 where no connection was accepted."""


class HttpMiddleware(ABC):
    """Middleware for HTTP requests."""

    def __init__(self, app: ASGIApp) -> None:
        # Each piece of a stream resumes every coroutine between server and engine, so a call of `enter` makes none.
        self.app: ASGIApp = app.enter if isinstance(app, HttpMiddleware) else app
        self._applies = {path: self.applies(route) for path, route in ROUTES.items()}
        self._applies_to_unknown = self.applies(UNKNOWN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection; servers and other libraries call this."""
        await self.enter(scope, receive, send)

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a request, or pass it on. No route takes a WebSocket, so it is refused."""
        kind = scope["type"]
        if kind == "http" and self._applies.get(scope["path"], self._applies_to_unknown):
            return self.handle(scope, receive, send)
        if kind == "websocket":
            return send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return self.app(scope, receive, send)

    def applies(self, route: HttpRoute) -> bool:  # noqa: ARG002 - subclasses look at it
        """Whether this middleware handles requests for this route; by default it handles all. Called once for each."""
        return True

    @abstractmethod
    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a request.

        Raises:
            ApiError: it is refused.
        """


class RequestCheck(HttpMiddleware):
    """Middleware that only looks at a request before it passes."""

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Check the request, and pass it on."""
        self.check(scope)
        return self.app(scope, receive, send)

    @abstractmethod
    def check(self, scope: Scope) -> None:
        """Check a request.

        Raises:
            ApiError: it is refused.
        """
