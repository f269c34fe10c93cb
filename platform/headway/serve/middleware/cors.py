"""Cross-origin requests: pages of any origin may send requests and read responses, refusals included."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.request_context import context_of
from headway.serve.response_hooks import discard


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware with a hook on the response, instead of its wrapper of `send`."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, allow_origins="*", allow_methods="*", allow_headers="*", expose_headers="*")

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        """Pass a request on that is no preflight."""

        async def add_headers(message: Message) -> None:
            await self.send(message, discard, request_headers)

        context_of(scope).response.on_start.append(add_headers)
        await self.app(scope, receive, send)
