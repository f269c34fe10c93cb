"""What stands in front of the engine: links that a request passes one after the other, each a small ASGI middleware.

Ray Serve is told of them by name (`LINKS`) and puts them around all that it does itself: its own errors pass them, too.
"""

import os
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from headway.serve.admission import Admission, Load
from headway.serve.auth import Authentication
from headway.serve.config import ServeConfig
from headway.serve.deadline import Deadline
from headway.serve.draining import Draining
from headway.serve.memory_budget import MemoryBudget
from headway.serve.meter import Meter
from headway.serve.quota import Quotas
from headway.serve.request_body import RequestBody
from headway.serve.request_id import RequestId
from headway.serve.request_telemetry import RequestTelemetry
from headway.serve.routes import Routes
from headway.serve.serve_bypass import ServeBypass
from headway.serve.telemetry_sinks import telemetry_sinks
from headway.serve.tenants import KeyStore, Tenants
from headway.serve.validation import Validation
from headway.serve.write_timeout import WriteTimeout

LINKS = f"{__name__}:links"
"""Where Serve finds them."""
DRAINING = "HEADWAY_DRAINING"
"""Environment: the file that exists once the service was asked to stop."""
BODIES = 64
"""For so many bodies of full length there is room at a time."""


def middleware_stack() -> list[Middleware]:
    """The links of this process's endpoint, the outermost last."""
    endpoint, told = ServeConfig.here(), telemetry_sinks()
    room = MemoryBudget(BODIES * endpoint.body_bytes)
    tenants = Tenants(KeyStore(endpoint.keys)) if endpoint.keys else None
    passed = [
        Middleware(RequestId, spans=told.spans, origin=told.origin),
        Middleware(RequestTelemetry, observed=told),
        Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]),
        Middleware(WriteTimeout, most_seconds=endpoint.reader_seconds, observed=told),
        Middleware(Draining, marker=Path(os.environ[DRAINING])),
        *([Middleware(Authentication, tenants=tenants)] if tenants else []),
        Middleware(Routes),
        Middleware(RequestBody, most_bytes=endpoint.body_bytes, most_seconds=endpoint.body_seconds, room=room),
        *([Middleware(Quotas, tenants=tenants, meter=Meter())] if tenants else []),
        Middleware(Validation, most=endpoint.choices),
        Middleware(Admission, load=Load(endpoint.streams, endpoint.queue)),
        Middleware(Deadline),
        Middleware(ServeBypass),
    ]
    return passed[::-1]
