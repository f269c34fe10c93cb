"""The service's port: whether it is free before the start, and whether our replica listens there after it."""

import secrets
import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException

from headway.errors import UsageError
from headway.serve.config import ServeConfig
from headway.serve.middleware.request_id import REQUEST_ID_HEADER
from headway.serve.routes import HEALTH

HEALTH_TIMEOUT_SECONDS = 10.0
"""How long a replica may take to respond at `/health` [s]."""


def require_free_port(config: ServeConfig) -> None:
    """Check that the service can listen at its port.

    Raises:
        UsageError: another process listens there, or the address is not one of this machine.
    """
    try:
        address = socket.gethostbyname(config.host)
    except OSError as error:
        raise UsageError(f"{config.host} is not an IPv4 address of this machine ({error.strerror})") from error
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, config.port))
        except OSError as error:
            raise UsageError(
                f"port {config.port} of {config.host} is not free ({error.strerror}); choose another with --port"
            ) from error


def owns_port(config: ServeConfig) -> bool:
    """Whether our replica listens at the port; Ray Serve takes the next port if another process has this one."""
    host = "127.0.0.1" if config.host == "0.0.0.0" else config.host  # noqa: S104 - a comparison
    request_id = secrets.token_hex(8)
    with closing(HTTPConnection(host, config.port, timeout=HEALTH_TIMEOUT_SECONDS)) as connection:
        try:
            connection.request("GET", HEALTH, headers={REQUEST_ID_HEADER: request_id})
            return connection.getresponse().headers.get(REQUEST_ID_HEADER) == request_id
        except (OSError, HTTPException):
            return False
