"""Node process: the process that runs Ray, and the service's hold on it.

Ray's calls can hang, and its libraries can end the process that uses them. So the service itself never calls Ray: it
starts a process (`__main__.py` here), which reports over the control channel, and which it can kill at any time.
"""

import os
import subprocess
import sys
from pathlib import Path

from headway.errors import ServeError
from headway.parent_death import adopt_orphans
from headway.serve.control_client import SOCKET_VARIABLE
from headway.serve.process.process_tree import children, kill_descendants

ESSENTIAL = ("gcs_server", "raylet")
"""Processes of Ray without which no replica can be started or kept."""


class NodeProcess:
    """A node, and every process below it, as the service sees them."""

    def __init__(self, folder: Path, control_socket: Path) -> None:
        """Start it, with its temporary files in `folder`; it will connect to `control_socket`."""
        adopt_orphans()
        self._others = frozenset(children()[os.getpid()])
        self._essential: dict[str, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __package__, str(os.getpid()), str(folder / "ray")],
            env=os.environ | {"TMPDIR": str(folder), SOCKET_VARIABLE: str(control_socket)},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            process_group=0,  # a signal to the group of the service is for the service
        )

    def failure(self) -> str | None:
        """The part of the node that has ended; None: all that has started is live."""
        if (code := self._process.poll()) is not None:
            return f"Ray's node (code {code})"
        if len(self._essential) < len(ESSENTIAL):
            names = {_name(process): process for process in children()[self._process.pid]}
            self._essential |= {name: process for name, process in names.items() if name in ESSENTIAL}
        return next((f"Ray's {name}" for name, process in self._essential.items() if _name(process) != name), None)

    def kill(self) -> None:
        """End it with every process below it.

        Raises:
            ServeError: one of them does not end.
        """
        has_ended = kill_descendants(self._others)
        self._process.wait()
        if not has_ended:
            raise ServeError(f"processes below {os.getpid()} do not end although they were killed")


def _name(process: int) -> str:
    """Name of a live process, else an empty one."""
    try:
        folder = Path(f"/proc/{process}")
        is_zombie = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
        return "" if is_zombie else (folder / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
