"""What stands in front of the engine: links that a request passes one after the other, each a small ASGI middleware.

Ray Serve is told of them by name (`LINKS`) and puts them around all that it does itself: its own errors pass them, too.
"""

from starlette.middleware import Middleware

from headway.serve.departure import Departure
from headway.serve.identity import Identity

LINKS = f"{__name__}:links"
"""Where Serve finds them."""


def links() -> list[Middleware]:
    """The links, the outermost last."""
    return [Middleware(Departure), Middleware(Identity)]
