"""The middleware in front of the engine, in the order that a request passes it.

Ray Serve imports `middleware_stack` by its name (`STACK_PATH`) and wraps its own handler with it, so Ray Serve's own
error responses pass the middleware too.
"""

from starlette.middleware import Middleware

from headway.serve.middleware.admission import Admission
from headway.serve.middleware.auth import Authentication
from headway.serve.middleware.buffering import Buffering
from headway.serve.middleware.cors import CrossOrigin
from headway.serve.middleware.deadline import Deadline
from headway.serve.middleware.draining import Draining
from headway.serve.middleware.error_responses import ErrorResponses
from headway.serve.middleware.fallback import Fallback
from headway.serve.middleware.metrics_endpoint import MetricsEndpoint
from headway.serve.middleware.quota import QuotaEnforcement
from headway.serve.middleware.request_id import RequestId
from headway.serve.middleware.request_telemetry import RequestTelemetry
from headway.serve.middleware.route_allowlist import RouteAllowlist
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.validation import Validation
from headway.serve.middleware.write_timeout import WriteTimeout
from headway.serve.runtime import ReplicaRuntime, replica_runtime
from headway.serve.tenants.meter import Meter


def request_path(runtime: ReplicaRuntime) -> list[Middleware]:
    """The middleware of a replica, in the order that a request passes it; responses pass it in the reverse order."""
    config, sinks, tenants = runtime.config, runtime.sinks, runtime.tenants
    return [
        Middleware(RequestId, spans=sinks.spans, run_trace=sinks.run_trace, log=sinks.log),
        Middleware(RequestTelemetry, sinks=sinks),
        Middleware(CrossOrigin),
        Middleware(WriteTimeout, timeout_seconds=config.write_timeout_seconds, sinks=sinks),
        Middleware(ErrorResponses),
        Middleware(Draining, runtime=runtime),
        *([Middleware(Authentication, tenants=tenants)] if tenants else []),
        Middleware(RouteAllowlist),
        Middleware(MetricsEndpoint, sinks=sinks),
        Middleware(Buffering, config=config, budget=runtime.capacity.bodies),
        *([Middleware(QuotaEnforcement, tenants=tenants, meter=Meter())] if tenants else []),
        Middleware(Validation, max_choices=config.max_choices),
        Middleware(Admission, capacity=runtime.capacity),
        Middleware(Deadline),
        *([Middleware(Fallback, runtime=runtime, url=config.fallback)] if config.fallback else []),
        Middleware(ServeBypass, runtime=runtime),
    ]


def middleware_stack() -> list[Middleware]:
    """The middleware of this process as Ray Serve takes it: the innermost first."""
    return request_path(replica_runtime())[::-1]


STACK_PATH = f"{__name__}:{middleware_stack.__name__}"
"""Import path of the stack for Ray Serve."""
