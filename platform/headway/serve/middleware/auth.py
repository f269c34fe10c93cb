"""Authentication: maps the API key of a request to its tenant."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.openai_error import INVALID_REQUEST, error_response
from headway.serve.request_context import context_of
from headway.serve.routes import route_of
from headway.serve.tenants.key_file import Tenants


class Authentication:
    """Middleware that lets only requests with a valid API key pass; some routes need none."""

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        self.app, self.tenants = app, tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its tenant, or respond with 401."""
        if scope["type"] == "websocket":  # no route takes one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or not route_of(scope).needs_key:
            await self.app(scope, receive, send)
            return
        scheme, _, key = Headers(scope=scope).get("Authorization", "").partition(" ")
        tenant = self.tenants.tenant_of(key.strip()) if scheme.lower() == "bearer" else None
        if tenant is None:
            await _unauthorized(has_key=bool(key))(scope, receive, send)
            return
        context_of(scope).tenant = tenant
        await self.app(scope, receive, send)


def _unauthorized(*, has_key: bool) -> JSONResponse:
    message = "The API key is unknown or revoked."
    if not has_key:
        message = "The API key is missing. Send Authorization: Bearer KEY."
    headers = {"WWW-Authenticate": "Bearer"}
    return error_response(401, message, kind=INVALID_REQUEST, code="invalid_api_key", headers=headers)
