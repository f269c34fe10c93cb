"""API key to tenant: who has no key is told so, in the words of OpenAI's API."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.refusal import refusal
from headway.serve.request_context import context_of
from headway.serve.tenants import Tenants

OPEN = ("/health", "/metrics", "/ping", "/version", "/-/healthz", "/-/routes")
"""What needs no key: probes and figures, nothing of what tenants ask."""


class Authentication:
    """The link that lets tenants through."""

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        self.app, self.tenants = app, tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its tenant, or answer 401."""
        if scope["type"] == "websocket":  # none of what is served here is asked by one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        scheme, _, key = Headers(scope=scope).get("Authorization", "").partition(" ")
        tenant = self.tenants.of(key.strip()) if scheme.lower() == "bearer" else None
        if tenant is None:
            told = (
                "This API key is not known, or was revoked." if key else "Send an API key: Authorization: Bearer KEY."
            )
            answer = refusal(
                401,
                told,
                kind="invalid_request_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await answer(scope, receive, send)
            return
        context_of(scope).tenant = tenant
        await self.app(scope, receive, send)
