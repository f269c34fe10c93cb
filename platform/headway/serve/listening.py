"""The port that a replica listens at: free for the next service as soon as one has ended.

Serve binds without `SO_REUSEADDR`: for a minute after a service, or for as long as one of its clients holds on to a
connection, none could be started at its port.
"""

import socket
from typing import Any


def reuse_address() -> None:
    """Have Serve's server in this process bind as other servers do."""
    from ray.serve._private import http_util, replica

    start = http_util.start_asgi_http_server

    async def start_and_reuse(*given: Any, **named: Any) -> Any:
        return await start(*given, **{**named, "enable_so_reuseport": True})

    http_util.set_socket_reuse_port = _reuse_address  # type: ignore[assignment]  # another name for the socket
    replica.start_asgi_http_server = start_and_reuse  # type: ignore[attr-defined]


def _reuse_address(listener: socket.socket) -> bool:
    """In place of Serve's own, by which two services could share a port, and each get half of the requests."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return True
