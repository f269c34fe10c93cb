"""A service with a real control channel and a real port; a double stands for Ray, which needs seconds to start."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.serve.replicas import config

from headway.errors import ServeError, UsageError
from headway.serve.control_client import ControlClient
from headway.serve.control_messages import Deployed, StageDone
from headway.serve.process.service import Service

SECONDS = 60
"""A bound for hangs."""


class Node:
    """A node that starts nothing; the test plays it and its replica."""

    def __init__(self) -> None:
        self.control_socket = Path()
        self.problem: str | None = None
        """What of it has ended."""
        self.error: Exception | None = None
        """What its start raises."""
        self.is_killed = False

    def started(self, _folder: Path, control_socket: Path) -> "Node":
        """Itself, once the service starts it."""
        self.control_socket = control_socket
        if self.error:
            raise self.error
        return self

    def failure(self) -> str | None:
        """What of it has ended."""
        return self.problem

    def kill(self) -> None:
        """End it."""
        self.is_killed = True

    def deploy(self, failure: str | None = None) -> None:
        """Report that the replica has started, or why it has not."""
        assert ControlClient(self.control_socket).send(Deployed(failure))

    def replica(self) -> ControlClient:
        """A replica that has begun to start."""
        client = ControlClient(self.control_socket)
        assert client.send(StageDone("imports", 1.0))
        return client


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    """The node of the service."""
    node = Node()
    monkeypatch.setattr("headway.serve.process.service.NodeProcess", node.started)
    return node


@pytest.fixture
def stopped(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that was not entered; its temporary folder is in the test's, and signals are restored at the end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("headway.serve.process.service.SOCKET_ROOM", 0)  # there is no Ray
    monkeypatch.setattr("headway.serve.process.service.require_free_port", lambda _: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield Service(config(port=1))
    assert node.is_killed or node.error
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


def test_a_service_waits_for_what_is_in_flight(service: Service, node: Node) -> None:
    """Until then the replica responds to scrapes, and refuses requests."""
    in_flight, draining_replica = [1], threading.Event()
    node.replica().follow(draining_replica.set, lambda: in_flight[0])
    draining = Draining(service)
    assert draining_replica.wait(SECONDS)
    assert draining.is_alive()
    in_flight[0] = 0
    assert draining.result() is True


def test_a_replica_that_ends_before_it_has_finished_has_cut_requests_off(service: Service, node: Node) -> None:
    """Then not all of them completed."""
    replica = node.replica()
    draining = Draining(service)
    replica.close()
    assert draining.result() is False


def test_a_second_signal_cuts_requests_off(service: Service, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one only asks the service to stop; a copy of it, as `timeout` sends one, says nothing new."""
    node.replica().follow(lambda: None, lambda: 1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert service.stopping.is_set()
    service.supervise()  # returns at once
    draining = Draining(service)
    os.kill(os.getpid(), signal.SIGTERM)
    draining.join(0.5)
    assert draining.is_alive()
    monkeypatch.setattr("headway.serve.process.service.COPY_SECONDS", 0.0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert draining.result() is False


def test_the_stages_of_a_start_are_reported(service: Service, node: Node) -> None:
    """Each as soon as it ends."""
    reports: list[dict[str, float]] = []

    def report(stages: dict[str, float]) -> None:
        reports.append(stages)
        if len(stages) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            replica.send(StageDone("engine", 2.0))

    replica = node.replica()
    assert service.start(report) is False
    assert reports == [{"imports": 1.0}, {"imports": 1.0, "engine": 2.0}]


def test_a_replica_that_does_not_start_is_an_error(service: Service, node: Node) -> None:
    """The message holds the replica's own."""
    node.deploy("its own words")
    with pytest.raises(ServeError, match="the model did not start: its own words"):
        service.start(lambda _: None)


def test_a_replica_at_another_port_is_an_error(service: Service, node: Node) -> None:
    """Ray Serve takes the next port if another process has taken ours meanwhile."""
    node.deploy()
    with pytest.raises(ServeError, match="--port"):
        service.start(lambda _: None)


def test_a_node_that_dies_ends_the_start(service: Service, node: Node) -> None:
    """Nothing would ever report."""
    node.problem = "Ray's raylet"
    with pytest.raises(ServeError, match="Ray's raylet died before the model was loaded"):
        service.start(lambda _: None)


@pytest.mark.parametrize("signalled", [False, True])
def test_a_node_that_dies_ends_the_service(service: Service, node: Node, signalled: bool) -> None:  # noqa: FBT001
    """What is in flight completes as far as it can; a signal is followed, as ever."""
    finished = threading.Event()
    node.replica().follow(lambda: None, lambda: 0, finish=finished.set)
    node.problem = "Ray's raylet"
    if signalled:
        os.kill(os.getpid(), signal.SIGTERM)
        service.supervise()
        assert service.drain()
    else:
        with pytest.raises(ServeError, match="Ray's raylet died"):
            service.supervise()
    assert finished.is_set()


def test_a_replica_that_dies_ends_the_service(service: Service, node: Node) -> None:
    """Whoever keeps it starts it again."""
    node.replica().close()
    with pytest.raises(ServeError, match="died"):
        service.supervise()


def test_a_folder_that_is_deleted_ends_the_service(service: Service, node: Node) -> None:
    """No engine could be replaced without it. What is in flight completes."""
    finished = threading.Event()
    node.replica().follow(lambda: None, lambda: 0, finish=finished.set)
    shutil.rmtree(node.control_socket.parent)
    with pytest.raises(ServeError, match=r"was deleted .* set TMPDIR"):
        service.supervise()
    assert finished.is_set()


def test_a_service_leaves_nothing_behind(stopped: Service, node: Node, tmp_path: Path) -> None:
    """Its folder is its user's only while it runs."""
    with stopped:
        [folder] = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert node.control_socket.exists()
    assert node.is_killed
    assert not [*tmp_path.iterdir()]


def test_a_node_that_does_not_start_leaves_nothing_behind(stopped: Service, node: Node, tmp_path: Path) -> None:
    """The error is the node's own."""
    node.error = UsageError("no Ray")
    with pytest.raises(UsageError, match="no Ray"), stopped:
        pass
    assert not [*tmp_path.iterdir()]
