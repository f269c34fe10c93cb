"""What stands in front of the engine: links that a request passes one after the other, each a small ASGI middleware.

Ray Serve is told of them by name (`LINKS`) and puts them around all that it does itself: its own errors pass them, too.
"""

import os
from pathlib import Path

from starlette.middleware import Middleware

from headway.serve.access import Access
from headway.serve.admission import Admission, Load
from headway.serve.deadline import Deadline
from headway.serve.departure import Departure
from headway.serve.draining import Draining
from headway.serve.endpoint import Endpoint
from headway.serve.identity import Identity
from headway.serve.observed import observed
from headway.serve.observer import Observer
from headway.serve.tenants import Keys, Tenants

LINKS = f"{__name__}:links"
"""Where Serve finds them."""
DRAINING = "HEADWAY_DRAINING"
"""Environment: the file that exists once the service was asked to stop."""


def links() -> list[Middleware]:
    """The links of this process's endpoint, the outermost last."""
    endpoint, told = Endpoint.here(), observed()
    access = [Middleware(Access, tenants=Tenants(Keys(endpoint.keys)))] if endpoint.keys else []
    admission = Middleware(Admission, load=Load(endpoint.streams, endpoint.queue))
    draining = Middleware(Draining, marker=Path(os.environ[DRAINING]))
    observer = Middleware(Observer, observed=told)
    identity = Middleware(Identity, spans=told.spans, origin=told.origin)
    return [Middleware(Departure), Middleware(Deadline), admission, *access, draining, observer, identity]
