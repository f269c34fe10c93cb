"""Patches of Ray and of Ray Serve's HTTP server."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from starlette.types import ASGIApp

POLL_SECONDS = 0.02
"""Interval between looks at a server that is closing [s]."""


def ray_init_options(folder: Path) -> dict[str, Any]:
    """Options of `ray.init` that Ray calls hidden: a node that lives in `folder`.

    Why: `/tmp/ray` is shared by all users of a machine. Unnecessary once Ray documents an option for it.
    """
    return {"_temp_dir": str(folder)}


def loopback_environment() -> dict[str, str]:
    """Environment variables, read at Ray's import, with which the ports of a node are reached from this machine only.

    Why: Ray listens at every address, and replaces the loopback address by another one wherever it is given, except on
    systems where it has no clusters. Unnecessary once Ray keeps an address that it is given.
    """
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def keep_replica_local() -> None:
    """Make the port at which other deployments call a replica listen at the loopback only.

    Why: it listens at every address, and unpickles what it is sent. Unnecessary once it listens where its node does.
    """
    from ray.serve._private import replica

    add_port: Any = replica.add_port_to_grpc_server  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = lambda server, _: add_port(server, "127.0.0.1:0")  # type: ignore[attr-defined]


def use_process_groups() -> None:
    """Make Ray start each process of its node in a process group of its own.

    Why: shells, terminals and `timeout` signal the whole group of a command. Ray's processes would die at once, and
    with them the requests in flight. Unnecessary once Ray has an option for it.
    """
    from ray._private import services

    services.ConsolePopen = partial(subprocess.Popen, process_group=0)  # type: ignore[assignment, misc]


def reuse_port() -> None:
    """Make Ray Serve's HTTP server in this process bind with `SO_REUSEADDR`.

    Why: Ray Serve's replica binds without it. Then no service could start at the port for a minute after one has ended,
    or while one of its clients keeps a connection open. Ray Serve's own option would set `SO_REUSEPORT`, with which two
    services could share a port and split the requests. Unnecessary once Ray Serve binds as other servers do.
    """
    from ray.serve._private import http_util, replica

    start = http_util.start_asgi_http_server

    async def start_with_reuse(*args: Any, **kwargs: Any) -> Any:
        return await start(*args, **{**kwargs, "enable_so_reuseport": True})

    def set_reuse_address(listener: socket.socket) -> bool:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return True

    http_util.set_socket_reuse_port = set_reuse_address  # type: ignore[assignment]  # another name for the socket
    replica.start_asgi_http_server = start_with_reuse  # type: ignore[attr-defined]


def adapt_http_server(
    protocol: Callable[..., asyncio.Protocol], on_start: Callable[[Callable[[], None]], None]
) -> None:
    """Make Ray Serve's HTTP server in this process speak `protocol`, and pass `on_start` the function that closes it.

    That function may be called in any thread. It closes the listener, waits until all responses are sent, and returns.
    Why: uvicorn's protocol for httptools limits neither size nor duration of a head, and Ray Serve has no option for
    another one. And to stop a replica by Ray Serve takes up to a minute. Unnecessary once uvicorn has such limits, and
    once Ray Serve stops a replica that serves no request at once.
    """
    from ray.serve._private import replica

    start = replica.start_asgi_http_server  # type: ignore[attr-defined]

    async def start_adapted(*args: Any, **kwargs: Any) -> Any:
        task, server = await start(*args, **kwargs)
        server.config.http = cast("Any", protocol)  # it is read once the task runs

        def close() -> None:
            server.should_exit = True
            while not task.done():
                time.sleep(POLL_SECONDS)

        on_start(close)
        return task, server

    replica.start_asgi_http_server = start_adapted  # type: ignore[attr-defined]


def bypass_request_handler(handler: ASGIApp, application: ASGIApp | None) -> ASGIApp:
    """Choose what responds to a request: the application itself, or Ray Serve's `handler` until there is one.

    Why: the handler would count, log and name each request and watch its connection; other middleware or vLLM does all
    of it. Ray Serve then counts nothing, so the replica itself waits for requests in flight before it closes the
    HTTP server, which waits for requests that arrive after that. It relies on Ray Serve putting the
    middleware of its HTTP proxy callback around the handler of a replica. Unnecessary once a replica with direct
    ingress costs a request nothing but the application.
    """
    return application or handler
