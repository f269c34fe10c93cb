"""Ray node: a Ray of the service's own on this machine, and one Ray Serve application on it.

The replica listens at the service's port itself (Ray Serve's direct ingress), without a proxy between client and
engine.
"""

import logging
import os
import resource
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.errors import ServeError
from headway.serve.config import ServeConfig
from headway.serve.engine.vllm_engine import on_gpu
from headway.serve.middleware.stack import STACK_PATH
from headway.serve.patches import ray_patches

APPLICATION = "headway"
"""Name of the Ray Serve application."""
HEALTH_SECONDS = 1.0
"""Interval between health checks of the replica [s]."""
OBJECT_STORE_BYTES = 100 * 2**20
"""Size of Ray's shared memory, which the service does not use [bytes]."""


class RayNode:
    """Starts Ray and the replica."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config

    def start(self, folder: Path) -> None:
        """Start Ray, with its files in `folder`."""
        os.environ |= ray_environment(self.config.port)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # the replica inherits it; a connection is a file
        import ray
        from ray import serve  # noqa: F401 - the import sets up its log

        ray_patches.use_process_groups()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 1),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **ray_patches.ray_init_options(folder),
        )

    def deploy(self) -> None:
        """Start the replica, and return once it responds.

        Raises:
            ServeError: the replica did not start; holds its own message and Ray Serve's.
        """
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
        )
        try:
            serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")
        except Exception as error:  # any error: Ray Serve raises what it likes
            raise ServeError("\n".join(filter(None, [self._failure_message(), str(error)]))) from error

    def _failure_message(self) -> str:
        """The replica's own words about why it did not start; empty if Ray Serve does not know."""
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        messages: list[str] = []
        with suppress(RayError, RayServeException):
            if application := serve.status().applications.get(APPLICATION):
                messages = [deployment.message for deployment in application.deployments.values()]
        return "\n".join(filter(None, messages))


def ray_environment(port: int) -> dict[str, str]:
    """Environment variables of the replica, and those that Ray and Ray Serve read at their import."""
    return {
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": STACK_PATH,
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",  # whoever reaches a port of Ray without it could run code as this user
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        **ray_patches.loopback_environment(),
    }
