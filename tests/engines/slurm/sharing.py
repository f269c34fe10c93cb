"""Nodes that share this machine's network and processes: their ports, and what runs on them.

As a process of its own (`sharing.py SPOOL SLURM_CONF NODE...`) this module waits for the end of its standard input;
then it ends what runs on the nodes and removes their spool. So they end when their owner does, even if it is killed.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress

import psutil

PORTS = range(20000, 32768)
"""Below those that the kernel hands out to connections."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has."""
    free: list[int] = []
    first = os.getpid() % (len(PORTS) // 2)  # two test sessions at a time begin at different ones
    with ExitStack() as held:
        for port in PORTS[first:]:
            if len(free) == count:
                return free
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                free.append(port)
    raise RuntimeError(f"fewer than {count} ports are free from {PORTS[first]} to {PORTS[-1]}")


def sweep(configuration: str, nodes: Collection[str]) -> None:
    """Kill what runs on nodes of the cluster that has this slurm.conf: steps outlive the daemon that started them."""
    while found := [process for process in psutil.process_iter() if _is_on(process, configuration, nodes)]:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def _is_on(process: psutil.Process, configuration: str, nodes: Collection[str]) -> bool:
    """Daemons and all that they start have both in their environment; a user's own shell has at most the first."""
    with suppress(psutil.Error):
        environment = process.environ()
        ours = environment.get("SLURM_CONF") == configuration and environment.get("SLURMD_NODENAME") in nodes
        return ours and process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    sys.stdin.read()
    sweep(sys.argv[2], sys.argv[3:])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
