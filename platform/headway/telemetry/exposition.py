"""Showing metrics: `/metrics` on a port, and a file by which Prometheus finds it (`file_sd_configs`).

A job that leaves at once takes its last figures with it, and a short one is never seen: with a folder for targets, it
stays for two scrapes before it takes its file away. Whatever goes wrong here is a warning: work goes on unseen.
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

from headway.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PORT_VARIABLE, TARGETS_VARIABLE, LINGER_VARIABLE = "HEADWAY_METRICS", "HEADWAY_TARGETS", "HEADWAY_LINGER"
LINGER_SECONDS = 30.0
"""Two scrapes of a Prometheus that scrapes every 15 s."""
POLL_SECONDS = 0.05
OWNER = "__meta_headway_owner"
"""A label that tells whose file it is; Prometheus drops those that begin so."""
log = logging.getLogger("headway")


@dataclass(frozen=True)
class Exposure:
    """What is asked for: where to show metrics, and for how long."""

    port: int = 0
    """0: any that is free."""
    address: str = "0.0.0.0"  # noqa: S104 - Prometheus is on another machine
    targets: str | None = None
    """Folder for the file by which Prometheus finds the port."""
    linger: float = 0.0
    """How long they stay after the end [s]."""


def exposure_from_environment(option: str | None = None) -> Exposure | None:
    """What `[ADDRESS:]PORT` and the environment ask for; None if nobody wants metrics.

    Raises:
        UsageError: they cannot mean anything.
    """
    where, targets = option or os.environ.get(PORT_VARIABLE), os.environ.get(TARGETS_VARIABLE) or None
    if not where and not targets:
        return None
    address, _, port = (where or "0").rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{where!r} is no port; give --metrics or {PORT_VARIABLE} as PORT or ADDRESS:PORT, 0 for any")
    lasts = os.environ.get(LINGER_VARIABLE) or str(LINGER_SECONDS if targets else 0.0)
    try:
        linger = float(lasts)
    except ValueError:
        linger = -1.0
    if not 0 <= linger < float("inf"):
        raise UsageError(f"{LINGER_VARIABLE}={lasts} is no number of seconds; two scrape intervals are what it takes")
    return Exposure(int(port), address.strip("[]") or Exposure.address, targets, linger)


class Exposition:
    """A registry, shown until it is closed."""

    def __init__(self, exposure: Exposure, registry: "CollectorRegistry", name: str, owner: str) -> None:
        """`name` is that of the target's file, `owner` whoever may take it away again."""
        self.exposure, self.name, self.owner = exposure, name, owner
        self.port: int | None = None
        """The one that it is shown on; None while it is not."""
        self._labels: Mapping[str, str] | None = None
        self._lock = threading.Lock()
        self._closed = False
        # from a thread: http.server asks for this machine's full name, which takes seconds where nobody knows it
        self._opening = threading.Thread(target=self._open, args=(registry,), name="metrics", daemon=True)
        self._opening.start()

    def announce(self, **labels: str) -> None:
        """Have Prometheus find it, under these labels."""
        with self._lock:
            self._labels = labels
            self._write()

    def await_port(self, seconds: float) -> int | None:
        """The port, once it is shown; None if it is not in so many seconds."""
        self._opening.join(seconds)
        return self.port

    def linger(self, seconds: float, leave: Callable[[], bool] = lambda: False) -> None:
        """Stay so long, that the last figures are seen; less, once it is time to `leave`."""
        until = time.monotonic() + seconds
        while self.port is not None and time.monotonic() < until and not leave():
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Take the file away, and show nothing more."""
        withdraw(self.exposure, self.name, self.owner)
        with self._lock:
            self._closed = True
            if self.port is not None:
                self._server.shutdown()
                self._server.server_close()
                self.port = None

    def _open(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import start_http_server

        try:
            server, _ = start_http_server(self.exposure.port, self.exposure.address, registry)
        except OSError as error:
            where = f"{self.exposure.address}:{self.exposure.port}"
            log.warning("headway: no metrics: %s: %s; choose another port with --metrics, or 0 for any", where, error)
            return
        with self._lock:
            if self._closed:
                server.shutdown()
                server.server_close()
                return
            self._server, self.port = server, server.server_port
            self._write()

    def _write(self) -> None:
        """Write the target's file, once there is something to write and somewhere to go."""
        if self._labels is None or self.port is None or self._closed or not self.exposure.targets:
            return
        file = path(self.exposure.targets, self.name)
        document = [{"targets": [f"{socket.gethostname()}:{self.port}"], "labels": {**self._labels, OWNER: self.owner}}]
        scratch = file.with_suffix(f".{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            scratch.replace(file)
        except OSError as error:
            log.warning("headway: Prometheus is not told of these metrics (%s): %s", TARGETS_VARIABLE, error)


def withdraw(exposure: Exposure | None, name: str, owner: str) -> None:
    """Take the target's file away, if it is still the `owner`'s."""
    if exposure is None or exposure.targets is None:
        return
    file = path(exposure.targets, name)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # not there, or not ours
        if json.loads(file.read_text(encoding="utf-8"))[0]["labels"][OWNER] == owner:
            file.unlink()


def path(folder: str, name: str) -> Path:
    """The file of the target `name`."""
    return Path(folder, f"{name}.json")
