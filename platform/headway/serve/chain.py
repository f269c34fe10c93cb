"""What stands in front of the engine: links that a request passes one after the other, each a small ASGI middleware.

Ray Serve is told of them by name (`LINKS`) and puts them around all that it does itself: its own errors pass them, too.
"""

import os
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from headway.serve.access import Access
from headway.serve.admission import Admission, Load
from headway.serve.body import Body
from headway.serve.deadline import Deadline
from headway.serve.draining import Draining
from headway.serve.endpoint import Endpoint
from headway.serve.identity import Identity
from headway.serve.meter import Meter
from headway.serve.observed import observed
from headway.serve.observer import Observer
from headway.serve.offer import Offer
from headway.serve.quota import Quotas
from headway.serve.reader import Reader
from headway.serve.room import Room
from headway.serve.shortcut import Shortcut
from headway.serve.soundness import Soundness
from headway.serve.tenants import Keys, Tenants

LINKS = f"{__name__}:links"
"""Where Serve finds them."""
DRAINING = "HEADWAY_DRAINING"
"""Environment: the file that exists once the service was asked to stop."""
BODIES = 64
"""For so many bodies of full length there is room at a time."""


def links() -> list[Middleware]:
    """The links of this process's endpoint, the outermost last."""
    endpoint, told = Endpoint.here(), observed()
    room = Room(BODIES * endpoint.body_bytes)
    tenants = Tenants(Keys(endpoint.keys)) if endpoint.keys else None
    passed = [
        Middleware(Identity, spans=told.spans, origin=told.origin),
        Middleware(Observer, observed=told),
        Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]),
        Middleware(Reader, most_seconds=endpoint.reader_seconds, observed=told),
        Middleware(Draining, marker=Path(os.environ[DRAINING])),
        *([Middleware(Access, tenants=tenants)] if tenants else []),
        Middleware(Offer),
        Middleware(Body, most_bytes=endpoint.body_bytes, most_seconds=endpoint.body_seconds, room=room),
        *([Middleware(Quotas, tenants=tenants, meter=Meter())] if tenants else []),
        Middleware(Soundness, most=endpoint.choices),
        Middleware(Admission, load=Load(endpoint.streams, endpoint.queue)),
        Middleware(Deadline),
        Middleware(Shortcut),
    ]
    return passed[::-1]
