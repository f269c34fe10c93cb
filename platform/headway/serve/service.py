"""One node that serves: a Ray of its own, one Ray Serve application on it, and this process, which keeps them.

The replica listens at the service's port by itself (Serve's direct ingress): no proxy stands between a client and the
engine. This process starts it all, sees that it lives, and on a signal lets the requests in flight come to their end.
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
from headway.serve import middleware
from headway.serve.config import VARIABLE, ServeConfig
from headway.serve.draining import IN_FLIGHT
from headway.serve.engine import on_gpu
from headway.serve.log_pipe import LogPipe
from headway.serve.request_id import HEADER
from headway.serve.startup import stages
from headway.serve.telemetry_sinks import LOG, TERMINAL

APPLICATION = "headway"
POLL_SECONDS = 0.2
HEALTH_SECONDS = 1.0
"""How often the engine is asked whether it lives [s]."""
ANSWER_SECONDS = 10.0
"""Within which a ready replica answers whether it is well [s]."""
LEAST_GRACE_SECONDS = 35.0
"""Serve waits at least so long for a replica that listens by itself [s]."""
OBJECTS_BYTES = 100 * 2**20
"""Ray's shared memory, which nothing here uses [bytes]."""


class Service:
    """A service from its start to its end; used as a context, which leaves no process behind."""

    def __init__(self, endpoint: ServeConfig) -> None:
        self.endpoint = endpoint
        self.url = f"http://{endpoint.host}:{endpoint.port}/v1"
        """For an OpenAI client."""
        self.stopping = threading.Event()
        """Set by SIGTERM and SIGINT."""
        self._hurry = threading.Event()
        """Set by the second of them: what is in flight is not waited for."""
        self._failure: BaseException | None = None
        self._folder = Path()

    def __enter__(self) -> Self:
        _check_free(self.endpoint)
        self._folder = Path(tempfile.mkdtemp(prefix="headway-"))
        self._relay = LogPipe(self._folder / "log")
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _begin(self) -> None:
        """Start Ray."""
        self._settle()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # the replica inherits it: each connection is a file
        import ray
        from ray import serve  # noqa: F401 - loading it sets up its log

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 1),
            object_store_memory=OBJECTS_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=str(self._folder / "ray"),
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray has taken them
            signal.signal(number, lambda *_: self._asked_to_stop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        try:
            ray.shutdown(wait_for_processes=True)
        finally:
            self._relay.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, tell: Callable[[dict[str, float]], None]) -> bool:
        """Start the replica; True once it has answered, False if it was asked to stop before.

        `tell` is called with the seconds of each stage, as the replica reaches them.

        Raises:
            ServeError: it did not start; says what the replica said.
        """
        thread = threading.Thread(target=self._run, name="serve", daemon=True)
        thread.start()
        told: dict[str, float] = {}
        while thread.is_alive() and not self.stopping.is_set():
            thread.join(POLL_SECONDS)
            if (now := stages(self._folder / "startup")) != told:
                tell(told := now)
        if self._failure:
            raise ServeError(f"the model did not start: {self._reason()}") from self._failure
        if self.stopping.is_set():
            return False
        if not self._answers():
            raise ServeError(f"nothing of ours answers at port {self.endpoint.port}: choose another with --port")
        return True

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of the replica's start."""
        return stages(self._folder / "startup")

    def watch(self) -> None:
        """Return when the service was asked to stop.

        Raises:
            ServeError: the engine died.
        """
        while not self.stopping.wait(HEALTH_SECONDS):
            if self._state() not in {"RUNNING", "DEPLOYING"}:
                raise ServeError(f"the engine of {self.endpoint.name} died; start the service again")

    def drain(self) -> bool:
        """Accept nothing more, and let what is in flight come to its end, within the endpoint's grace.

        Returns whether all of it did; a second signal cuts the grace short.
        """
        from ray import serve

        (self._folder / "draining").touch()
        deadline = time.monotonic() + max(LEAST_GRACE_SECONDS, self.endpoint.grace_seconds)
        self._until(lambda: not self._in_flight(), deadline)
        serve.delete(
            APPLICATION, _blocking=False
        )  # until then it listens: to who asks for metrics or is to go elsewhere
        return self._until(lambda: self._state() is None, deadline)

    def _until(self, done: Callable[[], bool], deadline: float) -> bool:
        """Whether it is done before the deadline [s, `time.monotonic`], or a second signal."""
        while not (over := done()) and time.monotonic() < deadline and not self._hurry.wait(POLL_SECONDS):
            pass
        return over

    def _state(self) -> str | None:
        """What Serve says of the application; None if it knows of none."""
        from ray import serve
        from ray.exceptions import RayError

        try:
            found = serve.status().applications.get(APPLICATION)
        except RayError as error:
            raise ServeError(f"Ray died under {self.endpoint.name}; start the service again") from error
        return found.status if found else None

    def _asked_to_stop(self) -> None:
        if self.stopping.is_set():
            self._hurry.set()
        self.stopping.set()

    def _run(self) -> None:
        """Deploy the application, and wait until its replica is ready."""
        try:
            from ray import serve

            from headway.serve.replica import Replica

            # Serve starts a proxy all the same: it is not to take the port that it takes by default, perhaps ours
            serve.start(proxy_location="Disabled", http_options={"host": self.endpoint.host, "port": 0})
            deployment: Any = serve.deployment(
                serve.ingress()(Replica),
                name="replica",
                num_replicas=1,
                max_ongoing_requests=100_000,  # admission is not Serve's
                ray_actor_options={"num_cpus": 1, "num_gpus": int(on_gpu())},
                health_check_period_s=HEALTH_SECONDS,
                max_constructor_retry_count=1,
                graceful_shutdown_timeout_s=max(LEAST_GRACE_SECONDS, self.endpoint.grace_seconds),
            )
            serve.run(deployment.bind(self.endpoint, self._folder / "startup"), name=APPLICATION, route_prefix="/")
        except Exception as error:  # whatever Ray raises is why the service did not start
            self._failure = error

    def _settle(self) -> None:
        """Set what Ray and Serve read from the environment when they are imported."""
        port = str(self.endpoint.port)
        os.environ |= {
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": port,
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(self.endpoint.port + 1),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": middleware.LINKS,
            VARIABLE: self.endpoint.model_dump_json(),
            middleware.DRAINING: str(self._folder / "draining"),
            LOG: str(self._folder / "log"),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if sys.stderr.isatty():
            os.environ[TERMINAL] = "1"

    def _answers(self) -> bool:
        """Whether it is our replica that listens at the port; Serve would take the next one if that was taken."""
        name = secrets.token_hex(8)
        return self._health({HEADER: name}).get(HEADER) == name

    def _in_flight(self) -> int:
        """Requests that have not come to their end, as a replica tells that was told to stop; 0 if it tells nothing."""
        return int(self._health({}).get(IN_FLIGHT, 0))

    def _health(self, headers: dict[str, str]) -> HTTPMessage:
        """The headers of what the replica answers to who asks how it is; none if nobody answers."""
        host = self.endpoint.host
        here = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - a comparison
        with closing(HTTPConnection(here, self.endpoint.port, timeout=ANSWER_SECONDS)) as asked:
            try:
                asked.request("GET", "/health", headers=headers)
                return asked.getresponse().headers
            except (OSError, HTTPException):
                return HTTPMessage()

    def _reason(self) -> str:
        """What the replica said of it, as far as Serve has heard."""
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        said: list[str] = []
        with suppress(RayError, RayServeException):
            if found := serve.status().applications.get(APPLICATION):
                said = [deployment.message for deployment in found.deployments.values()]
        return "\n".join([*filter(None, said), str(self._failure)])


def _check_free(endpoint: ServeConfig) -> None:
    """See that nobody listens at the endpoint's port.

    Raises:
        UsageError: somebody does, or this machine has no such address.
    """
    try:
        address = socket.gethostbyname(endpoint.host)
    except OSError as error:
        raise UsageError(f"{endpoint.host} is no IPv4 address of this machine ({error.strerror})") from error
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address, endpoint.port))
        except OSError as error:
            raise UsageError(
                f"port {endpoint.port} of {endpoint.host} is not free ({error.strerror}); choose another with --port"
            ) from error
