"""Authentication: maps the API key of a request to its tenant."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.request_context import context_of
from headway.serve.routes import HttpRoute
from headway.serve.tenants.lookup import Tenants


class Authentication(RequestCheck):
    """Middleware that lets only requests with a valid API key pass; some routes need none."""

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        super().__init__(app)
        self.tenants = tenants

    def applies(self, route: HttpRoute) -> bool:
        """Whether its requests need a key; those for unknown paths do."""
        return route.needs_key

    def check(self, scope: Scope) -> None:
        """Note the tenant of the request, or refuse it with 401."""
        scheme, _, key = Headers(scope=scope).get("Authorization", "").partition(" ")
        tenant = self.tenants.tenant_of(key.strip()) if scheme.lower() == "bearer" else None
        if tenant is None:
            message = "The API key is unknown or revoked."
            if not key:
                message = "The API key is missing. Send Authorization: Bearer KEY."
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, message, kind=INVALID_REQUEST, code="invalid_api_key", headers=headers)
        context_of(scope).tenant = tenant
