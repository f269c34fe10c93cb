"""The middleware in front of the engine, in the order that a request passes it.

Ray Serve imports `middleware_stack` by its name (`STACK_PATH`) and wraps its own handler with it, so Ray Serve's own
error responses pass the middleware too.
"""

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from headway.serve.middleware.admission import Admission
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
from headway.serve.runtime import ReplicaRuntime, replica_runtime
from headway.serve.tenants.meter import Meter


def middleware_stack() -> list[Middleware]:
    """The middleware of this process, the innermost first, as Ray Serve takes it."""
    return request_path(replica_runtime())[::-1]


def request_path(runtime: ReplicaRuntime) -> list[Middleware]:
    """The middleware of a replica, in the order that a request passes it."""
    config, sinks, tenants = runtime.config, runtime.sinks, runtime.tenants
    return [
        Middleware(RequestId, spans=sinks.spans, run_trace=sinks.run_trace),
        Middleware(RequestTelemetry, sinks=sinks),
        Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]),
        Middleware(WriteTimeout, timeout_seconds=config.write_timeout_seconds, sinks=sinks),
        Middleware(Draining, runtime=runtime),
        *([Middleware(Authentication, tenants=tenants)] if tenants else []),
        Middleware(RouteAllowlist),
        Middleware(
            RequestBody,
            max_bytes=config.max_body_bytes,
            timeout_seconds=config.body_timeout_seconds,
            budget=runtime.capacity.bodies,
        ),
        *([Middleware(QuotaEnforcement, tenants=tenants, meter=Meter())] if tenants else []),
        Middleware(Validation, max_choices=config.max_choices),
        Middleware(Admission, capacity=runtime.capacity),
        Middleware(Deadline),
        Middleware(ServeBypass, runtime=runtime),
    ]


STACK_PATH = f"{__name__}:{middleware_stack.__name__}"
"""Import path of the stack for Ray Serve."""
