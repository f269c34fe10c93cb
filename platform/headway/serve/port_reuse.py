"""Port reuse: the port of a replica is free for the next service as soon as this one has ended.

Ray Serve binds without `SO_REUSEADDR`. Then no service could start at the port for a minute after one has ended, or
while one of its clients keeps a connection open.
"""

import socket
from typing import Any


def reuse_address() -> None:
    """Make Ray Serve's HTTP server in this process bind with `SO_REUSEADDR`."""
    from ray.serve._private import http_util, replica

    start = http_util.start_asgi_http_server

    async def start_with_reuse(*args: Any, **kwargs: Any) -> Any:
        return await start(*args, **{**kwargs, "enable_so_reuseport": True})

    http_util.set_socket_reuse_port = _set_reuse_address  # type: ignore[assignment]  # another name for the socket
    replica.start_asgi_http_server = start_with_reuse  # type: ignore[attr-defined]


def _set_reuse_address(listener: socket.socket) -> bool:
    """Replaces Ray Serve's `SO_REUSEPORT`, with which two services could share a port and split the requests."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return True
