"""Nodes that share this machine's network and processes: their ports, and what runs on them.

As a process of its own (`sharing.py SPOOL SLURM_CONF NODE...`) this module waits for the end of its standard input;
then it ends what runs on the nodes and removes their spool. So they end when their owner does, even if it is killed.
"""

import shutil
import socket
import sys
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

PORTS = range(20000, 32768)
"""Below those that the kernel hands out to connections."""
BLOCK = 256
"""Ports of one cluster; the first of them is only held, to say that the others are taken."""


def own_address() -> str:
    """Where SLURM's daemons listen on this machine when they are told not to listen everywhere.

    Raises `RuntimeError` if others reach that address: the daemons believe whoever reaches them.
    """
    host = socket.gethostname()
    with suppress(OSError):
        if (address := socket.gethostbyname(host)).startswith("127."):
            return address
    raise RuntimeError(
        f"without root, {host} must be this machine's own name for itself: 127.0.1.1 {host} in /etc/hosts"
    )


def reserve(address: str, count: int) -> tuple[socket.socket, range]:
    """Ports that nobody has, and what holds them: they are ours until it is closed, also while nobody listens there."""
    for first in PORTS[::BLOCK]:
        held, ports = socket.socket(), range(first + 1, first + 1 + count)
        try:
            held.bind((address, first))
            for port in ports:
                with socket.socket() as probe:
                    probe.bind((address, port))
        except OSError:
            held.close()
        else:
            return held, ports
    raise RuntimeError(f"no {count} ports in a row are free at {address} from {PORTS[0]} on")


def sweep(configuration: str, nodes: Collection[str]) -> None:
    """Kill what runs on nodes of the cluster that has this slurm.conf: steps outlive the daemon that started them.

    A process shows no environment while it becomes another (execve), so nothing has to be seen twice.
    """
    looks_without = 0
    while looks_without < 2:
        processes = [process for process in psutil.process_iter() if _is_on(process, configuration, nodes)]
        looks_without = 0 if processes else looks_without + 1
        for process in processes:
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
