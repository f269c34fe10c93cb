"""What others in the network and on the machine reach of a real service: the port for clients, and nothing else."""

import stat
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from tests.integration.serving import Served, title
from tests.integration.training import DEADLINE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
CALLS = {
    "gcs_server": "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "raylet/raylet": "/ray.rpc.NodeManagerService/GetNodeStats",
    "ServeController": "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ServeReplica": "/ray.serve.ASGIService/HandleRequest",
}
"""A call that each process of Ray would take, at one of its ports; the last one unpickles what it is sent."""
FOREIGN = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE}
"""Status of a call at a port for something else."""


def ports(service: Served) -> dict[tuple[str, int], str]:
    """Where the processes of a service listen, and which of them does."""
    places: dict[tuple[str, int], str] = {}
    for member in psutil.Process(service.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            for link in member.net_connections("inet"):
                if link.status == psutil.CONN_LISTEN:
                    places[link.laddr.ip, link.laddr.port] = title(member)
    return places


def token(service: Served) -> str:
    """The token with which the processes of a service's Ray know each other; only the user who serves can read it."""
    members = psutil.Process(service.process.pid).children(recursive=True)
    return next(each.environ()["RAY_AUTH_TOKEN"] for each in members if "ServeReplica" in title(each))


def call(port: int, method: str, secret: str | None) -> grpc.StatusCode:
    """Call a method with an empty message; returns how it ended."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        metadata = [("authorization", f"Bearer {secret}")] if secret else []
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=DEADLINE)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_the_network_reaches_the_port_of_clients_only(service: Served) -> None:
    """Which is at the loopback, too, unless `--host` says otherwise; all else is there for the machine itself."""
    places = ports(service)
    assert ("127.0.0.1", service.port) in places
    assert len(places) > len(CALLS)
    assert not {place: name for place, name in places.items() if place[0] not in LOOPBACK}


@pytest.mark.parametrize("process", CALLS)
def test_a_neighbour_on_the_machine_cannot_use_ray(service: Served, process: str) -> None:
    """Whoever can run code in Ray runs it as the user who serves. No call is taken without the service's own token."""
    numbers = [port for (_, port), name in ports(service).items() if process in name and port != service.port]
    for secret in (None, "x" * 64):
        answers = {call(port, CALLS[process], secret) for port in numbers}
        assert answers - FOREIGN == {grpc.StatusCode.UNAUTHENTICATED}
    with_token = {call(port, CALLS[process], token(service)) for port in numbers}
    assert with_token - FOREIGN
    assert grpc.StatusCode.UNAUTHENTICATED not in with_token


def test_a_neighbour_on_the_machine_installs_nothing(service: Served) -> None:
    """Ray's agent for environments would; it takes HTTP."""
    [port] = [port for (_, port), name in ports(service).items() if "RuntimeEnvAgent" in name]
    url = f"http://127.0.0.1:{port}/get_or_create_runtime_env"
    assert httpx.post(url, timeout=DEADLINE).status_code == 401
    assert httpx.post(url, headers={"Authorization": f"Bearer {token(service)}"}, timeout=DEADLINE).is_success


def test_the_files_of_a_service_are_its_users_own(service: Served) -> None:
    """The sockets between its processes lie in them, too: who can connect to one could pretend to be a part of it."""
    folders = [folder for folder in service.temporary.iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for member in psutil.Process(service.process.pid).children(recursive=True):
        paths = [Path(str(link.laddr)) for link in member.net_connections("unix")]
        for path in [path for path in paths if path.is_absolute()]:
            assert any(path.is_relative_to(folder) for folder in folders), (path, title(member))
