"""The table of routes: every path that the service offers, and what middleware knows of it.

vLLM's application has more routes. Some are not for tenants (`/scale_elastic_ep` restarts engines), some evade quotas,
some show the data of one tenant to another (`/v1/responses/{id}`). So the table lists what exists, not what is hidden.
"""

from dataclasses import dataclass
from enum import Enum, auto

from starlette.types import Scope

HEALTH = "/health"
OTHER = "other"
"""Path label of every path without a label of its own: clients can send any path, and labels must stay few."""


class Responder(Enum):
    """What responds to a request."""

    APPLICATION = auto()
    """vLLM's application."""
    METRICS = auto()
    """The metrics of this process."""
    RAY_SERVE = auto()
    """Ray Serve itself."""


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
    has_fallback: bool = False
    """Whether the fallback service may respond instead of the engine."""
    responder: Responder = Responder.APPLICATION
    """What responds to its requests."""
    max_body_bytes: int | None = None
    """Longest request body [bytes]; None: the limit of the service."""

    @property
    def takes_body(self) -> bool:
        """Whether its requests have a body: a JSON object. They are charged, and count as load of the engine."""
        return self.method == "POST"


ROUTES = {
    route.path: route
    for route in (
        HttpRoute("POST", "/v1/completions", labelled=True, operation="text_completion", has_fallback=True),
        HttpRoute("POST", "/v1/chat/completions", labelled=True, operation="chat", has_fallback=True),
        HttpRoute("POST", "/v1/responses", labelled=True, has_fallback=True),
        HttpRoute("POST", "/v1/embeddings", labelled=True, operation="embeddings", has_fallback=True),
        HttpRoute("GET", "/v1/models", labelled=True),
        HttpRoute("POST", "/tokenize", labelled=True, max_body_bytes=2**18),  # prompts wait while vLLM tokenizes
        HttpRoute("POST", "/detokenize"),
        HttpRoute("GET", HEALTH, needs_key=False, probe=True),
        HttpRoute("GET", "/ping", needs_key=False, probe=True),
        HttpRoute("GET", "/version", needs_key=False, probe=True),
        HttpRoute(
            "GET", "/metrics", needs_key=False, probe=True, open_while_draining=True, responder=Responder.METRICS
        ),
        HttpRoute("GET", "/openapi.json"),
        HttpRoute("GET", "/-/healthz", needs_key=False, responder=Responder.RAY_SERVE),
        HttpRoute("GET", "/-/routes", needs_key=False, responder=Responder.RAY_SERVE),
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
