"""Error responses: whatever refuses a request raises an `ApiError`; this middleware sends it to the client."""

from starlette.types import Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.openai_error import ApiError
from headway.serve.request_context import context_of


class ErrorResponses(HttpMiddleware):
    """Middleware that responds to refused requests. Middleware that refuses any must be inside it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and respond with its error if it is refused."""
        try:
            await self.app(scope, receive, send)
        except ApiError as raised:
            # They would keep frames alive, and the body in them, until the client has read the response.
            raised.__traceback__ = raised.__context__ = raised.__cause__ = None
            error = raised
        else:
            return
        await context_of(scope).response.fail(error)
