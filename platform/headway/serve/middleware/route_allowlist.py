"""Allow-list of routes: what is not in the table of routes does not exist."""

from starlette.types import Scope

from headway.serve.middleware.http_middleware import RequestCheck
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.routes import UNKNOWN, route_of


class RouteAllowlist(RequestCheck):
    """Middleware that lets only requests for offered routes pass."""

    def check(self, scope: Scope) -> None:
        """Refuse an unknown path with 404, and another method than the route's with 405."""
        path, method, route = scope["path"], scope["method"], route_of(scope)
        if route is UNKNOWN:
            raise ApiError(404, f"The path {path[:128]} does not exist.", kind=INVALID_REQUEST, code="unknown_url")
        if method != route.method:
            message = f"{path} accepts {route.method}, not {method}."
            allow = {"Allow": route.method}
            raise ApiError(405, message, kind=INVALID_REQUEST, code="method_not_allowed", headers=allow)
