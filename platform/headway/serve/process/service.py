"""Service: starts one node and its replica, watches them, and lets requests in flight complete at SIGTERM or SIGINT."""

import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from headway.errors import ServeError
from headway.localfiles import short_temporary_folder
from headway.serve.config import ServeConfig
from headway.serve.control_messages import Configuration
from headway.serve.process.control_server import ControlServer
from headway.serve.process.port import owns_port, require_free_port
from headway.serve.process.ray_node import HEALTH_SECONDS, RayNode
from headway.stop_signals import stop_signals

SOCKET_ROOM = len("/headway-12345678/ray/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store")
"""Length of the path of Ray's longest socket below the temporary folder [bytes]."""
POLL_SECONDS = 0.2
"""Interval between checks while the service starts and drains [s]."""


class Service:
    """A service from start to end. As a context manager, it leaves no process behind."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.url = f"http://{config.host}:{config.port}/v1"
        """Base URL for an OpenAI client."""
        self.stopping = threading.Event()
        """Set by the first SIGTERM or SIGINT."""
        self._aborting = threading.Event()
        """Set by the second SIGTERM or SIGINT: requests in flight are cut off."""
        self._failure: BaseException | None = None
        self._node = RayNode(config)
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        require_free_port(self.config)
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="headway-", dir=short_temporary_folder(SOCKET_ROOM)))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            configuration = Configuration(self.config, terminal=sys.stderr.isatty())
            self._control = ControlServer(folder / "control", configuration, sys.stderr.write)
            stack.callback(self._control.close)
            stack.callback(self._node.shutdown)
            self._node.start(folder / "ray", folder / "control")
            for number in stop_signals():  # after Ray has started, which sets its own handlers
                signal.signal(number, lambda *_: self._on_signal())
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def start(self, on_progress: Callable[[dict[str, float]], None]) -> bool:
        """Start the replica. Returns True once it responds, False if a signal stops the service first.

        `on_progress` gets the seconds of all stages so far whenever a stage of the start ends.

        Raises:
            ServeError: the replica did not start; the message holds the replica's own.
        """
        thread = threading.Thread(target=self._deploy, name="serve", daemon=True)
        thread.start()
        last_stages: dict[str, float] = {}
        while thread.is_alive() and not self.stopping.is_set():
            thread.join(POLL_SECONDS)
            if (stages := self.stages()) != last_stages:
                on_progress(stages)
                last_stages = stages
        if self._failure:
            message = "\n".join(filter(None, [self._node.failure_message(), str(self._failure)]))
            raise ServeError(f"the model did not start: {message}") from self._failure
        if self.stopping.is_set():
            return False
        if not owns_port(self.config):
            raise ServeError(f"another process responds at port {self.config.port}; choose another port with --port")
        return True

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of the replica's start so far."""
        return self._control.stages

    def supervise(self) -> None:
        """Watch the replica until a signal stops the service.

        Raises:
            ServeError: the engine died.
        """
        while not self.stopping.wait(HEALTH_SECONDS):
            if self._node.status() not in {"RUNNING", "DEPLOYING"}:
                raise ServeError(f"the engine of {self.config.name} died; start the service again")

    def drain(self) -> bool:
        """Refuse new requests, and wait for those in flight within the grace period.

        Returns whether all completed. A second signal ends the grace period.
        """
        deadline = time.monotonic() + self._node.grace_seconds
        self._control.drain()
        self._wait_until(self._control.drained.is_set, deadline)
        self._node.delete()  # only now: the replica had to serve /metrics and send its refusals
        return self._wait_until(lambda: self._node.status() is None, deadline)

    def _wait_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait for `condition`; False at the deadline [s, `time.monotonic`] or at a second signal."""
        while not (is_met := condition()) and time.monotonic() < deadline and not self._aborting.wait(POLL_SECONDS):
            pass
        return is_met

    def _deploy(self) -> None:
        try:
            self._node.deploy()
        except Exception as error:  # any error: `start` reports it
            self._failure = error

    def _on_signal(self) -> None:
        (self._aborting if self.stopping.is_set() else self.stopping).set()
