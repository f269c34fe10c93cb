"""Service: one node with its own Ray and one Ray Serve application; this process starts and supervises them.

The replica listens at the service's port itself (Ray Serve's direct ingress), without a proxy between client and
engine. At SIGTERM or SIGINT, this process lets requests in flight complete.
"""

import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPMessage
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.errors import ServeError, UsageError
from headway.serve import patches
from headway.serve.config import CONFIG_VARIABLE, ServeConfig
from headway.serve.engine.vllm_engine import on_gpu
from headway.serve.middleware.draining import IN_FLIGHT_HEADER
from headway.serve.middleware.request_id import REQUEST_ID_HEADER
from headway.serve.middleware.stack import STACK_PATH
from headway.serve.process.log_pipe import LogPipe
from headway.serve.process.startup_progress import read_progress
from headway.serve.routes import HEALTH
from headway.serve.runtime import DRAINING_VARIABLE
from headway.serve.telemetry_sinks import LOG_VARIABLE, TERMINAL_VARIABLE

APPLICATION = "headway"
"""Name of the Ray Serve application."""
POLL_SECONDS = 0.2
"""Interval between checks while the service starts and drains [s]."""
HEALTH_SECONDS = 1.0
"""Interval between health checks of the engine [s]."""
HEALTH_TIMEOUT_SECONDS = 10.0
"""How long a replica may take to respond at `/health` [s]."""
MIN_GRACE_SECONDS = 35.0
"""Shortest time that Ray Serve waits for a replica with direct ingress [s]."""
OBJECT_STORE_BYTES = 100 * 2**20
"""Size of Ray's shared memory, which the service does not use [bytes]."""


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
        self._folder = Path()

    def __enter__(self) -> Self:
        _check_port(self.config)
        self._folder = Path(tempfile.mkdtemp(prefix="headway-"))
        self._log_pipe = LogPipe(self._folder / "log")
        try:
            self._start_ray()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _start_ray(self) -> None:
        self._set_environment()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # the replica inherits it; a connection is a file
        import ray
        from ray import serve  # noqa: F401 - the import sets up its log

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 1),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **patches.ray_init_options(self._folder / "ray"),
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # after ray.init, which sets its own handlers
            signal.signal(number, lambda *_: self._on_signal())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        try:
            ray.shutdown(wait_for_processes=True)
        finally:
            self._log_pipe.close()
            shutil.rmtree(self._folder, ignore_errors=True)

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
            raise ServeError(f"the model did not start: {self._failure_message()}") from self._failure
        if self.stopping.is_set():
            return False
        if not self._owns_port():
            raise ServeError(f"another process responds at port {self.config.port}; choose another port with --port")
        return True

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of the replica's start so far."""
        return read_progress(self._folder / "startup")

    def supervise(self) -> None:
        """Watch the replica until a signal stops the service.

        Raises:
            ServeError: the engine died.
        """
        while not self.stopping.wait(HEALTH_SECONDS):
            if self._application_status() not in {"RUNNING", "DEPLOYING"}:
                raise ServeError(f"the engine of {self.config.name} died; start the service again")

    def drain(self) -> bool:
        """Refuse new requests, and wait for those in flight within the grace period.

        Returns whether all completed. A second signal ends the grace period.
        """
        (self._folder / "draining").touch()
        deadline = time.monotonic() + max(MIN_GRACE_SECONDS, self.config.grace_seconds)
        self._wait_until(lambda: not self._in_flight(), deadline)
        patches.delete_application(APPLICATION)  # only now: the replica had to serve /metrics and send its refusals
        return self._wait_until(lambda: self._application_status() is None, deadline)

    def _wait_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait for `condition`; False at the deadline [s, `time.monotonic`] or at a second signal."""
        while not (is_met := condition()) and time.monotonic() < deadline and not self._aborting.wait(POLL_SECONDS):
            pass
        return is_met

    def _application_status(self) -> str | None:
        """Ray Serve's status of the application; None if it has none."""
        from ray import serve
        from ray.exceptions import RayError

        try:
            application = serve.status().applications.get(APPLICATION)
        except RayError as error:
            raise ServeError(f"Ray died under {self.config.name}; start the service again") from error
        return application.status if application else None

    def _on_signal(self) -> None:
        if self.stopping.is_set():
            self._aborting.set()
        self.stopping.set()

    def _deploy(self) -> None:
        """Deploy the application, and wait until its replica is ready."""
        try:
            from ray import serve

            from headway.serve.process.replica import Replica

            # Ray Serve starts a proxy in any case; port 0 keeps it off its default port, which may be ours.
            serve.start(proxy_location="Disabled", http_options={"host": self.config.host, "port": 0})
            deployment: Any = serve.deployment(
                serve.ingress()(Replica),
                name="replica",
                num_replicas=1,
                max_ongoing_requests=100_000,  # `Admission` limits requests, not Ray Serve
                ray_actor_options={"num_cpus": 1, "num_gpus": int(on_gpu())},
                health_check_period_s=HEALTH_SECONDS,
                max_constructor_retry_count=1,
                graceful_shutdown_timeout_s=max(MIN_GRACE_SECONDS, self.config.grace_seconds),
            )
            serve.run(deployment.bind(self.config, self._folder / "startup"), name=APPLICATION, route_prefix="/")
        except Exception as error:  # any error: `start` reports it
            self._failure = error

    def _set_environment(self) -> None:
        """Set the environment variables of the replica, and those that Ray and Ray Serve read at their import."""
        port = str(self.config.port)
        os.environ |= {
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": port,
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(self.config.port + 1),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": STACK_PATH,
            CONFIG_VARIABLE: self.config.model_dump_json(),
            DRAINING_VARIABLE: str(self._folder / "draining"),
            LOG_VARIABLE: str(self._folder / "log"),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if sys.stderr.isatty():
            os.environ[TERMINAL_VARIABLE] = "1"

    def _owns_port(self) -> bool:
        """Whether our replica listens at the port; Ray Serve takes the next port if another process has this one."""
        request_id = secrets.token_hex(8)
        return self._health_headers({REQUEST_ID_HEADER: request_id}).get(REQUEST_ID_HEADER) == request_id

    def _in_flight(self) -> int:
        """Number of requests in flight, as the draining replica reports it; 0 if it does not respond."""
        return int(self._health_headers({}).get(IN_FLIGHT_HEADER, 0))

    def _health_headers(self, headers: dict[str, str]) -> HTTPMessage:
        """Headers of the response to `GET /health`; none if there is no response."""
        host = self.config.host
        address = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - a comparison
        with closing(HTTPConnection(address, self.config.port, timeout=HEALTH_TIMEOUT_SECONDS)) as connection:
            try:
                connection.request("GET", HEALTH, headers=headers)
                return connection.getresponse().headers
            except (OSError, HTTPException):
                return HTTPMessage()

    def _failure_message(self) -> str:
        """Why the replica did not start: its own messages as Ray Serve has them, and the error here."""
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        messages: list[str] = []
        with suppress(RayError, RayServeException):
            if application := serve.status().applications.get(APPLICATION):
                messages = [deployment.message for deployment in application.deployments.values()]
        return "\n".join([*filter(None, messages), str(self._failure)])


def _check_port(config: ServeConfig) -> None:
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
