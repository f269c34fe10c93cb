"""The middleware in front of the engine, in the order that a request passes it.

Ray Serve imports `middleware_stack` by its name (`STACK_PATH`) and wraps its own handler with it, so Ray Serve's own
error responses pass the middleware too.
"""

import os
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from headway.serve.config import ServeConfig
from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.admission import Admission, Load
from headway.serve.middleware.auth import Authentication
from headway.serve.middleware.deadline import Deadline
from headway.serve.middleware.draining import Draining
from headway.serve.middleware.quota import QuotaEnforcement
from headway.serve.middleware.request_body import RequestBody
from headway.serve.middleware.request_id import RequestId
from headway.serve.middleware.request_telemetry import RequestTelemetry
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.validation import Validation
from headway.serve.middleware.write_timeout import WriteTimeout
from headway.serve.routes import RouteAllowlist
from headway.serve.telemetry_sinks import telemetry_sinks
from headway.serve.tenants.key_file import KeyStore, Tenants
from headway.serve.tenants.meter import Meter

DRAINING_VARIABLE = "HEADWAY_DRAINING"
"""Environment variable: the file that exists once the service was asked to stop."""
BUFFERED_BODIES = 64
"""Request bodies of full length that the memory budget holds at a time."""


def middleware_stack() -> list[Middleware]:
    """Build the middleware that this process's configuration asks for, the innermost first (as Ray Serve takes it)."""
    config, sinks = ServeConfig.from_environment(), telemetry_sinks()
    budget = MemoryBudget(BUFFERED_BODIES * config.max_body_bytes)
    tenants = Tenants(KeyStore(config.key_file)) if config.key_file else None
    outermost_first = [
        Middleware(RequestId, spans=sinks.spans, run_trace=sinks.run_trace),
        Middleware(RequestTelemetry, sinks=sinks),
        Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]),
        Middleware(WriteTimeout, timeout_seconds=config.write_timeout_seconds, sinks=sinks),
        Middleware(Draining, marker=Path(os.environ[DRAINING_VARIABLE])),
        *([Middleware(Authentication, tenants=tenants)] if tenants else []),
        Middleware(RouteAllowlist),
        Middleware(
            RequestBody, max_bytes=config.max_body_bytes, timeout_seconds=config.body_timeout_seconds, budget=budget
        ),
        *([Middleware(QuotaEnforcement, tenants=tenants, meter=Meter())] if tenants else []),
        Middleware(Validation, max_choices=config.max_choices),
        Middleware(Admission, load=Load(config.streams, config.queue)),
        Middleware(Deadline),
        Middleware(ServeBypass),
    ]
    return outermost_first[::-1]


STACK_PATH = f"{__name__}:{middleware_stack.__name__}"
"""Import path of the stack for Ray Serve."""
