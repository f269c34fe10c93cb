"""Serves `/metrics` on a port, and writes the file by which Prometheus finds the port (`file_sd_configs`).

Prometheus loses the last values of a job that exits at once, and never scrapes a short one. With a folder for targets,
the port therefore stays open for two scrapes at the end. Failures here are warnings: the job goes on without metrics.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headway import strict_json
from headway.errors import UsageError
from headway.localfiles import read_bounded, replacing

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PORT_VARIABLE, TARGETS_VARIABLE, LINGER_VARIABLE = "HEADWAY_METRICS", "HEADWAY_TARGETS", "HEADWAY_LINGER"
LINGER_SECONDS = 30.0
"""Two scrapes at an interval of 15 s."""
POLL_SECONDS = 0.05
OWNER_LABEL = "__meta_headway_owner"
"""Label that holds the owner of a target file; Prometheus drops labels with this prefix."""
MAX_TARGET_BYTES = 64 << 10
"""Longest target file [bytes]. Ours have some hundred."""
log = logging.getLogger("headway")


@dataclass(frozen=True)
class MetricsConfig:
    """Where to serve metrics, and for how long."""

    port: int = 0
    """Port; 0: any free one."""
    address: str = "0.0.0.0"  # noqa: S104 - Prometheus runs on another machine
    targets: str | None = None
    """Folder for the file by which Prometheus finds the port."""
    linger: float = 0.0
    """How long the port stays open at the end [s]."""


def metrics_config(option: str | None = None) -> MetricsConfig | None:
    """The configuration from `[ADDRESS:]PORT` and the environment; None if metrics are off.

    Raises:
        UsageError: a value is not valid.
    """
    where, targets = option or os.environ.get(PORT_VARIABLE), os.environ.get(TARGETS_VARIABLE) or None
    if not where and not targets:
        return None
    address, _, port = (where or "0").rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"{where!r} is not a port; give --metrics or {PORT_VARIABLE} as PORT or ADDRESS:PORT, 0 for any free port"
        )
    seconds = os.environ.get(LINGER_VARIABLE) or str(LINGER_SECONDS if targets else 0.0)
    try:
        linger = float(seconds)
    except ValueError:
        linger = -1.0
    if not 0 <= linger < float("inf"):
        raise UsageError(f"{LINGER_VARIABLE}={seconds} must be seconds >= 0 (use two scrape intervals)")
    return MetricsConfig(int(port), address.strip("[]") or MetricsConfig.address, targets, linger)


class MetricsServer:
    """Serves a registry until it is closed."""

    def __init__(self, config: MetricsConfig, registry: "CollectorRegistry", name: str, owner: str) -> None:
        """`name`: name of the target file. `owner`: id of the process that may remove the file."""
        self.config, self.name, self.owner = config, name, owner
        self.port: int | None = None
        """The open port, or None."""
        self._labels: Mapping[str, str] | None = None
        self._lock = threading.Lock()
        self._closed = False
        # In a thread: http.server looks up this machine's full name, which takes seconds without a DNS entry.
        self._opening = threading.Thread(target=self._open, args=(registry,), name="metrics", daemon=True)
        self._opening.start()

    def announce(self, **labels: str) -> None:
        """Write the target file with these labels, once the port is open."""
        with self._lock:
            self._labels = labels
            self._write_target()

    def await_port(self, seconds: float) -> int | None:
        """The port, once it is open; None after `seconds`."""
        self._opening.join(seconds)
        return self.port

    def linger(self, seconds: float, leave: Callable[[], bool] = lambda: False) -> None:
        """Keep the port open for `seconds`, so that the last values are scraped, or until `leave` returns true."""
        until = time.monotonic() + seconds
        while self.port is not None and time.monotonic() < until and not leave():
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Remove the target file and close the port."""
        remove_target(self.config, self.name, self.owner)
        with self._lock:
            self._closed = True
            if self.port is not None:
                self._server.shutdown()
                self._server.server_close()
                self.port = None

    def _open(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import start_http_server

        try:
            server, _ = start_http_server(self.config.port, self.config.address, registry)
        except OSError as error:
            where = f"{self.config.address}:{self.config.port}"
            log.warning("headway: no metrics: %s: %s; choose another port with --metrics, or 0 for any", where, error)
            return
        with self._lock:
            if self._closed:
                server.shutdown()
                server.server_close()
                return
            self._server, self.port = server, server.server_port
            self._write_target()

    def _write_target(self) -> None:
        """Write the target file, if labels and port are known and there is a folder for it."""
        if self._labels is None or self.port is None or self._closed or not self.config.targets:
            return
        path = target_path(self.config.targets, self.name)
        labels = {**self._labels, OWNER_LABEL: self.owner}
        document = [{"targets": [f"{socket.gethostname()}:{self.port}"], "labels": labels}]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, durable=False) as file:
                file.write(json.dumps(document, indent=1).encode() + b"\n")
        except OSError as error:
            log.warning("headway: Prometheus cannot find these metrics (%s): %s", TARGETS_VARIABLE, error)


def remove_target(config: MetricsConfig | None, name: str, owner: str) -> None:
    """Remove a target file, if it still belongs to `owner`."""
    if config is None or config.targets is None:
        return
    path = target_path(config.targets, name)
    with contextlib.suppress(OSError, UsageError, ValueError, LookupError, TypeError):  # missing, or another's
        if strict_json.parse(read_bounded(path, MAX_TARGET_BYTES))[0]["labels"][OWNER_LABEL] == owner:
            path.unlink()


def target_path(folder: str, name: str) -> Path:
    """Path of the target file `name`."""
    return Path(folder, f"{name}.json")
