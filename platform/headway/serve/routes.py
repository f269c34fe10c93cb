"""The table of routes: every path that the service offers. The middleware here refuses any other.

vLLM's application has more routes. Some are not for tenants (`/scale_elastic_ep` restarts engines), some evade quotas,
some show the data of one tenant to another (`/v1/responses/{id}`). So the table lists what exists, not what is hidden.
"""

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.openai_error import INVALID_REQUEST, error_response

HEALTH = "/health"
METRICS = "/metrics"
OTHER = "other"
"""Path label of every path without a label of its own: clients can send any path, and labels must stay few."""


@dataclass(frozen=True)
class HttpRoute:
    """A path and the one method that it accepts."""

    method: str
    path: str
    labelled: bool = False
    """Whether metrics and spans name the path; those of other paths say `other`."""
    operation: str | None = None
    """Operation name in OpenTelemetry's semantic conventions for generative AI."""
    needs_key: bool = True
    """Whether a service with API keys asks for one."""
    probe: bool = False
    """Whether machines poll it every few seconds: its requests leave no metric, span or log line."""
    open_while_draining: bool = False
    """Whether it responds after the service was asked to stop."""
    by_ray_serve: bool = False
    """Whether Ray Serve responds, not vLLM's application."""
    max_body_bytes: int | None = None
    """Longest request body [bytes]; None: the limit of the service."""


ROUTES = {
    route.path: route
    for route in (
        HttpRoute("POST", "/v1/completions", labelled=True, operation="text_completion"),
        HttpRoute("POST", "/v1/chat/completions", labelled=True, operation="chat"),
        HttpRoute("POST", "/v1/responses", labelled=True),
        HttpRoute("POST", "/v1/embeddings", labelled=True, operation="embeddings"),
        HttpRoute("GET", "/v1/models", labelled=True),
        HttpRoute("POST", "/tokenize", labelled=True, max_body_bytes=2**18),  # prompts wait while vLLM tokenizes
        HttpRoute("POST", "/detokenize"),
        HttpRoute("GET", HEALTH, needs_key=False, probe=True),
        HttpRoute("GET", "/ping", needs_key=False, probe=True),
        HttpRoute("GET", "/version", needs_key=False, probe=True),
        HttpRoute("GET", METRICS, needs_key=False, probe=True, open_while_draining=True),
        HttpRoute("GET", "/openapi.json"),
        HttpRoute("GET", "/-/healthz", needs_key=False, by_ray_serve=True),
        HttpRoute("GET", "/-/routes", needs_key=False, by_ray_serve=True),
    )
}
"""Every route by its path: OpenAI's API as far as the engine has it, and what machines poll."""
UNKNOWN = HttpRoute("", "")
"""Stands for any path that is not in the table."""


def route_of(scope: Scope) -> HttpRoute:
    """The route of a request's path, whatever its method; `UNKNOWN` if the table has none."""
    return ROUTES.get(scope["path"], UNKNOWN)


def path_label(scope: Scope) -> str:
    """Path label of a request's metrics and span."""
    route = route_of(scope)
    return route.path if route.labelled else OTHER


class RouteAllowlist:
    """Middleware that lets only requests for offered routes pass."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 404 or 405."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method, route = scope["path"], scope["method"], route_of(scope)
        if route is UNKNOWN:
            message = f"The path {path[:128]} does not exist."
            response = error_response(404, message, kind=INVALID_REQUEST, code="unknown_url")
        elif method != route.method:
            message = f"{path} accepts {route.method}, not {method}."
            allow = {"Allow": route.method}
            response = error_response(405, message, kind=INVALID_REQUEST, code="method_not_allowed", headers=allow)
        else:
            await self.app(scope, receive, send)
            return
        await response(scope, receive, send)
