"""Service: starts a node and its replica, watches them, and lets requests in flight complete at a stop signal.

Nothing here waits for Ray, so a signal is followed at any moment, and no process outlives the service.
"""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from headway.errors import ServeError
from headway.serve.config import ServeConfig
from headway.serve.control_messages import Configuration
from headway.serve.process.control_server import ControlServer
from headway.serve.process.node_process import NodeProcess
from headway.serve.process.port import owns_port, require_free_port
from headway.stop_signals import SignalFlag, stop_signals
from headway.temporary_folder import temporary_folder

SOCKET_ROOM = len("/headway-12345678/ray/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store")
"""Length of the path of Ray's longest socket below the temporary folder [bytes]."""
POLL_SECONDS = 0.2
"""Interval between checks while the service starts and drains [s]."""
HEALTH_SECONDS = 1.0
"""Interval between checks while it serves [s]."""
COPY_SECONDS = 1.0
"""Time after a signal within which another one is its copy: `timeout` signals its child and the child's group [s]."""


class Service:
    """A service from start to end. As a context manager, it leaves neither processes nor files behind."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.url = f"http://{config.host}:{config.port}/v1"
        """Base URL for an OpenAI client."""
        self.stopping = SignalFlag()
        """Set by the first signal that asks the service to stop."""
        self._aborting = SignalFlag()
        """Set by the second one: requests in flight are cut off."""
        self._first_signal = 0.0
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        require_free_port(self.config)
        for number in stop_signals():  # from here on nothing interrupts this thread
            signal.signal(number, lambda *_: self._on_signal())
        with ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder(SOCKET_ROOM))
            configuration = Configuration(self.config, terminal=sys.stderr.isatty())
            self._control = ControlServer(self._folder / "control", configuration, sys.stderr.write)
            stack.callback(self._control.close)
            self._node = NodeProcess(self._folder, self._folder / "control")
            stack.callback(self._node.kill)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def start(self, on_progress: Callable[[dict[str, float]], None]) -> bool:
        """Wait for the replica. Returns True once it responds, False if a signal stops the service first.

        `on_progress` gets the seconds of all stages so far whenever a stage of the start ends.

        Raises:
            ServeError: the replica did not start; the message holds the replica's own.
        """
        last_stages: dict[str, float] = {}
        while not self._control.deployed and not self.stopping.wait(POLL_SECONDS):
            if (stages := self.stages()) != last_stages:
                on_progress(stages)
                last_stages = stages
            if failure := self._node.failure():
                raise ServeError(f"{failure} died before the model was loaded; see the messages above")
        if self.stopping.is_set():
            return False
        if self._control.deployed and self._control.deployed.failure is not None:
            raise ServeError(f"the model did not start: {self._control.deployed.failure}")
        if not owns_port(self.config):
            raise ServeError(f"another process responds at port {self.config.port}; choose another port with --port")
        return True

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of the start so far."""
        return self._control.stages

    def supervise(self) -> None:
        """Watch the replica until a signal stops the service.

        Raises:
            ServeError: the service cannot go on. Requests in flight are complete, unless what died computed them.
        """
        while not self.stopping.wait(HEALTH_SECONDS):
            if problem := self._problem():
                self.drain()
                raise ServeError(f"{problem}; start the service again")

    def drain(self) -> bool:
        """Refuse new requests, and wait for those in flight within the grace period.

        Returns whether all completed. A second signal ends the grace period.
        """
        deadline = time.monotonic() + self.config.grace_seconds
        self._control.drain()
        while not (is_drained := self._control.drained.is_set()) and time.monotonic() < deadline:
            if self._aborting.wait(POLL_SECONDS):
                break
        return is_drained and not self._control.lost.is_set()

    def _problem(self) -> str | None:
        """Why the service cannot go on; None: it can."""
        if failure := self._node.failure():
            return f"{failure} died under {self.config.name}"
        if self._control.lost.is_set():
            return f"the engine of {self.config.name} died"
        if not (self._folder / "control").exists():
            return f"{self._folder} was deleted under {self.config.name}; set TMPDIR to a folder that nobody cleans"
        return None

    def _on_signal(self) -> None:
        """Follow a signal; it may come at any moment, so it only sets flags."""
        now = time.monotonic()
        if not self.stopping.is_set():
            self._first_signal = now
            self.stopping.set()
        elif now - self._first_signal >= COPY_SECONDS:
            self._aborting.set()
