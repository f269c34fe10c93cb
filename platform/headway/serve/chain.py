"""What stands in front of the engine: links that a request passes one after the other, each a small ASGI middleware.

Ray Serve is told of them by name (`LINKS`) and puts them around all that it does itself: its own errors pass them, too.
"""

import os
from pathlib import Path

from starlette.middleware import Middleware

from headway.serve.access import Access
from headway.serve.admission import Admission, Load
from headway.serve.body import Body
from headway.serve.deadline import Deadline
from headway.serve.departure import Departure
from headway.serve.draining import Draining
from headway.serve.endpoint import Endpoint
from headway.serve.identity import Identity
from headway.serve.meter import Meter
from headway.serve.quota import Quotas
from headway.serve.tenants import Keys, Tenants

LINKS = f"{__name__}:links"
"""Where Serve finds them."""
ENDPOINT = "HEADWAY_ENDPOINT"
"""Environment: the endpoint that they are for, as JSON; Serve calls `links` without a word."""
DRAINING = "HEADWAY_DRAINING"
"""Environment: the file that exists once the service was asked to stop."""


def links() -> list[Middleware]:
    """The links of this process's endpoint, the outermost last."""
    endpoint = Endpoint.model_validate_json(os.environ[ENDPOINT])
    tenants = Tenants(Keys(endpoint.keys)) if endpoint.keys else None
    access = [Middleware(Access, tenants=tenants)] if tenants else []
    quota = [Middleware(Quotas, tenants=tenants, meter=Meter())] if tenants else []
    body = Middleware(Body, most_bytes=endpoint.body_bytes, most_seconds=endpoint.body_seconds)
    admission = Middleware(Admission, load=Load(endpoint.streams, endpoint.queue))
    draining = Middleware(Draining, marker=Path(os.environ[DRAINING]))
    before = [*quota, body, *access, draining, Middleware(Identity)]
    return [Middleware(Departure), Middleware(Deadline), admission, *before]
