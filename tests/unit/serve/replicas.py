"""What the tests of a replica's parts share: a runtime without Ray and vLLM, with a metric registry of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.capacity import Capacity
from headway.serve.config import ServeConfig
from headway.serve.middleware.error_responses import ErrorResponses
from headway.serve.middleware.request_id import RequestId
from headway.serve.runtime import ReplicaRuntime
from headway.serve.telemetry_sinks import open_sinks
from headway.telemetry import Spans

OUTERMOST = (Middleware(RequestId, spans=Spans("headway-serve", on=False)), Middleware(ErrorResponses))
"""What other middleware needs around it: requests have a context, and refusals get their response."""


def config(**fields: Any) -> ServeConfig:
    """A configuration with these fields."""
    return ServeConfig(**{"folder": Path("/model"), "name": "coder", **fields})


def capacity(streams: int, queue: int = 0, **options: Any) -> Capacity:
    """A capacity of so many requests."""
    return Capacity(config(streams=streams, queue=queue), **options)


def replica_runtime(**fields: Any) -> ReplicaRuntime:
    """A runtime with this configuration."""
    settings = config(**fields)
    return ReplicaRuntime(settings, open_sinks(settings, registry=CollectorRegistry()))


def behind(app: ASGIApp, *path: Middleware, outermost: Sequence[Middleware] = OUTERMOST) -> ASGIApp:
    """An application behind this middleware, in the order that a request passes it."""
    for each in reversed([*outermost, *path]):
        app = each.cls(app, *each.args, **each.kwargs)
    return app


async def serve(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request, as a coroutine that an event loop can run."""
    await app(scope, receive, send)
