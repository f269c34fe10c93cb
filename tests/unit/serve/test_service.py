"""A service with a real control channel and a real port; a double stands for Ray, which needs seconds to start."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.serve.replicas import config

from headway.errors import ServeError, UsageError
from headway.serve.control_client import ControlClient
from headway.serve.control_messages import StageDone
from headway.serve.process.service import Service

SECONDS = 60
"""A bound for hangs."""


class Node:
    """A Ray node that starts nothing; its replica is played by the test."""

    grace_seconds = float(SECONDS)

    def __init__(self) -> None:
        self.folder = Path()
        self.control_socket = Path()
        self.error: Exception | None = None
        """What `start` and `deploy` raise."""
        self.deploying = threading.Event()
        self.responds = threading.Event()
        """Set once the replica responds."""
        self.deleted = threading.Event()
        self.is_shut_down = False

    def start(self, folder: Path, control_socket: Path) -> None:
        """Remember where it would be."""
        self.folder, self.control_socket = folder, control_socket
        if self.error:
            raise self.error

    def deploy(self) -> None:
        """Wait for the test to say that the replica responds."""
        self.deploying.set()
        assert self.responds.wait(SECONDS)
        if self.error:
            raise self.error

    def status(self) -> str | None:
        """Ray Serve's status."""
        return None if self.deleted.is_set() else "RUNNING"

    def failure_message(self) -> str:
        """Why the replica did not start."""
        return "its own words"

    def delete(self) -> None:
        """Stop the replica."""
        self.deleted.set()

    def shutdown(self) -> None:
        """Stop Ray."""
        self.is_shut_down = True


@pytest.fixture
def node() -> Node:
    """The node of the service."""
    return Node()


@pytest.fixture
def stopped(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that was not entered; its temporary folder is in the test's, and signals are restored at the end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("headway.serve.process.service.SOCKET_ROOM", 0)  # there is no Ray
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    service = Service(config(port=1))
    monkeypatch.setattr("headway.serve.process.service.require_free_port", lambda _: None)
    service._node = cast("Any", node)  # noqa: SLF001 - Ray's place
    yield service
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def service(stopped: Service) -> Iterator[Service]:
    """A service that has started its node."""
    with stopped:
        yield stopped


class Draining(threading.Thread):
    """A service that drains while the test goes on."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.complete: bool | None = None
        self.start()

    def run(self) -> None:
        """Drain, and keep the result."""
        self.complete = self.service.drain()

    def result(self) -> bool | None:
        """Whether all requests completed."""
        self.join(SECONDS)
        return self.complete


def test_a_service_deletes_its_replica_once_nothing_is_in_flight(service: Service, node: Node) -> None:
    """Until then the replica responds to scrapes, and refuses requests."""
    in_flight, told = [1], threading.Event()
    ControlClient(node.control_socket).follow(told.set, lambda: in_flight[0])
    draining = Draining(service)
    assert told.wait(SECONDS)
    [replica] = service._control._replicas  # noqa: SLF001 - to know what the service has read
    while replica.in_flight is None:
        time.sleep(0)
    assert not node.deleted.is_set()
    in_flight[0] = 0
    assert draining.result() is True
    assert node.deleted.is_set()


def test_a_second_signal_cuts_requests_off(service: Service, node: Node) -> None:
    """The first one only asks the service to stop."""
    ControlClient(node.control_socket).follow(lambda: None, lambda: 1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert service.stopping.is_set()
    service.supervise()  # returns at once
    draining = Draining(service)
    os.kill(os.getpid(), signal.SIGTERM)
    node.status = lambda: "RUNNING"  # type: ignore[method-assign]  # it does not stop in time
    assert draining.result() is False
    assert node.deleted.is_set()


def test_the_stages_of_a_start_are_reported(service: Service, node: Node) -> None:
    """Each as soon as it ends."""
    reports: list[dict[str, float]] = []

    def report(stages: dict[str, float]) -> None:
        reports.append(stages)
        if len(stages) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            replica.send(StageDone("engine", 2.0))

    replica = ControlClient(node.control_socket)
    replica.send(StageDone("imports", 1.0))
    assert service.start(report) is False
    assert reports == [{"imports": 1.0}, {"imports": 1.0, "engine": 2.0}]
    node.responds.set()


def test_a_replica_that_does_not_start_is_an_error(service: Service, node: Node) -> None:
    """The message holds the replica's own, and Ray Serve's."""
    node.error = RuntimeError("the error of Ray Serve")
    node.responds.set()
    with pytest.raises(ServeError, match="its own words\nthe error of Ray Serve"):
        service.start(lambda _: None)


def test_a_replica_at_another_port_is_an_error(service: Service, node: Node) -> None:
    """Ray Serve takes the next port if another process has taken ours meanwhile."""
    node.responds.set()
    with pytest.raises(ServeError, match="--port"):
        service.start(lambda _: None)


def test_a_dead_engine_ends_the_service(service: Service, node: Node) -> None:
    """Whoever keeps it starts it again."""
    node.deleted.set()
    with pytest.raises(ServeError, match="died"):
        service.supervise()


def test_a_service_leaves_nothing_behind(stopped: Service, node: Node, tmp_path: Path) -> None:
    """Its folder is its user's only while it runs."""
    with stopped:
        [folder] = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert node.control_socket.exists()
    assert node.is_shut_down
    assert not [*tmp_path.iterdir()]


def test_a_node_that_does_not_start_leaves_nothing_behind(stopped: Service, node: Node, tmp_path: Path) -> None:
    """The error is the node's own."""
    node.error = UsageError("no Ray")
    with pytest.raises(UsageError, match="no Ray"), stopped:
        pass
    assert node.is_shut_down
    assert not [*tmp_path.iterdir()]
