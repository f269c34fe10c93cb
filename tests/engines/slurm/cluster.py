"""Starts a real SLURM cluster on this machine, from the SLURM that `make engines` fetched.

`make slurm` runs it in out/slurm until Ctrl-C and prints what to export; `python -m tests.engines.slurm.cluster --
COMMAND` runs it for as long as a command takes; tests use `with Cluster(folder) as cluster`.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.engines.slurm import sharing
from tests.engines.slurm.configuration import Daemon, Layout
from tests.engines.slurm.hosts import MEMORY, Host, Network, available
from tests.engines.slurm.login import POLL_SECONDS, PREFIX, Login

START_SECONDS = 60.0
"""Within which every node must be idle [s]."""
PORT = 6817
"""Of every daemon that has an address of its own."""


class Cluster(Login):
    """A real SLURM cluster: a controller and `nodes` nodes, node1 to nodeN.

    Partitions: `main` (the default; a job of `high` has its jobs requeued at once), `grace` (the same, after 12 s of
    grace) and `high`, each of all nodes. No accounting, no authentication: not for a machine shared with strangers.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        *,
        hosts: bool | None = None,
        cpus: int = 8,
        gpus: int = 0,
        kill_wait: int = 5,
        slurmd_timeout: int = 10,
    ) -> None:
        """`hosts`: whether each node is a machine of its own; None: if this user may have that (as root, mostly).

        Without, the nodes' daemons share this machine's name, network and processes, at ports of their own.
        """
        super().__init__(folder)
        self.nodes = [f"node{number + 1}" for number in range(nodes)]
        self.hosts = available() if hosts is None else hosts
        self._cpus, self._gpus = cpus, gpus
        self._kill_wait, self._slurmd_timeout = kill_wait, slurmd_timeout
        self.address = "127.0.0.1"
        """At which nodes reach what runs on this machine."""
        self._machines: dict[str, Host] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._network: Network | None = None
        self._warden: subprocess.Popen[bytes] | None = None
        self._ports: socket.socket | None = None

    def __enter__(self) -> Self:
        for name in ("state", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RuntimeError(f"a cluster runs in {self.folder} already: choose another folder, or end it") from None
        try:
            layout = self._on_hosts() if self.hosts else self._on_ports()
            layout.write()
            self._launch("controller", [self._daemon("slurmctld"), "-D", "-c"])
            for node in self.nodes:
                self.start_node(node)
            self._await_idle()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    # Doing things to nodes

    def start_node(self, node: str) -> None:
        """Switch a node on, or start its daemon again."""
        if self._network and node not in self._machines:
            host = self._machines[node] = self._switch_on(node)
            self._network.join(host, self.nodes.index(node) + 1)
        self._launch(node, [self._daemon("slurmd"), "-d", self._daemon("slurmstepd"), "-D", "-N", node])

    def kill_slurmd(self, node: str) -> None:
        """Kill a node's daemon only: the steps on it live on."""
        self._end(node, signal.SIGKILL)

    def stop_controller(self) -> None:
        """Stop slurmctld in order: nobody can ask for anything, and what runs runs on.

        Killed, it forgets what it did in the last seconds: it begins a job a second time, on the machine that has it.
        """
        self._end("controller", signal.SIGTERM)

    def start_controller(self) -> None:
        """Start slurmctld again, with what it has written down."""
        self._launch("controller", [self._daemon("slurmctld"), "-D"])

    def _end(self, name: str, number: int) -> None:
        daemon = psutil.Process(self._daemons[name].pid)
        (daemon.children()[0] if self.hosts else daemon).send_signal(number)
        self._daemons.pop(name).wait()

    def power_cut(self, node: str) -> None:
        """End all that is on a node at once; if it is a host of its own, nobody hears of it.

        SLURM sees it after up to three times `slurmd_timeout`; setting the node DOWN by hand soon after may be undone
        by an answer that is still under way.
        """
        if self._network:
            host = self._machines.pop(node)
            self._network.leave(host)
            host.off()
            if node in self._daemons:
                self._daemons.pop(node).wait()
        else:
            if daemon := self._daemons.pop(node, None):
                daemon.kill()
                daemon.wait()
            sharing.sweep(self.environment["SLURM_CONF"], [node])

    def cut_network(self, node: str) -> None:
        """Cut a node off; what is on it runs on."""
        self._cables().plug(self._machines[node], "down")

    def join_network(self, node: str) -> None:
        """Undo `cut_network`."""
        self._cables().plug(self._machines[node], "up")

    def _cables(self) -> Network:
        if not self._network:
            raise RuntimeError("only nodes that are hosts of their own have a network to cut (hosts=True)")
        return self._network

    # Start and stop

    def _on_hosts(self) -> Layout:
        for path in self._files().values():
            path.touch()
        switch = self._machines["controller"] = self._switch_on("controller")
        self._network = Network(switch)
        prefix, self.address = self._network.prefix, self._network.address
        controller = Daemon("controller", f"{prefix}.253", PORT)
        nodes = {node: Daemon(node, f"{prefix}.{number}", PORT) for number, node in enumerate(self.nodes, start=1)}
        names = {"localhost": "127.0.0.1", socket.gethostname(): self.address, "controller": controller.address}
        names |= {name: node.address for name, node in nodes.items()}
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        # Nobody answers there: an unknown name is unknown at once, not after 20 s.
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        return self._layout(controller, nodes, MEMORY)

    def _on_ports(self) -> Layout:
        address, host = sharing.own_address(), socket.gethostname().partition(".")[0]
        self._ports, ports = sharing.reserve(address, 1 + len(self.nodes))
        spool = Path(tempfile.mkdtemp(prefix="slurm-"))
        self._warden = subprocess.Popen(
            [sys.executable, sharing.__file__, spool, self.environment["SLURM_CONF"], "controller", *self.nodes],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        daemons = [Daemon(host, address, port) for port in ports]
        return self._layout(daemons[0], dict(zip(self.nodes, daemons[1:], strict=True)), spool)

    def _layout(self, controller: Daemon, nodes: dict[str, Daemon], spool: Path) -> Layout:
        plugins = next(PREFIX.resolve().glob("usr/lib/*/slurm-wlm/auth_none.so"), None)
        return Layout(
            controller=controller,
            nodes=nodes,
            folder=self.folder,
            spool=spool,
            plugins=plugins.parent if plugins else None,
            cpus=self._cpus,
            gpus=self._gpus,
            kill_wait=self._kill_wait,
            slurmd_timeout=self._slurmd_timeout,
        )

    def _files(self) -> dict[str, Path]:
        return {f"/etc/{name}": self.folder / name for name in ("hosts", "resolv.conf")}

    def _switch_on(self, name: str) -> Host:
        return Host(name, self._files(), self.environment, self.folder / "log" / f"{name}.out")

    def _daemon(self, name: str) -> str:
        path = shutil.which(name, path=self.environment["PATH"])
        if not path:
            raise RuntimeError(f"no {name} here: make engines")
        return path

    def _launch(self, name: str, command: list[str]) -> None:
        log = self.folder / "log" / f"{name}.out"
        if self.hosts:
            self._daemons[name] = self._machines[name].start(command, log)
            return
        with log.open("ab") as file:
            self._daemons[name] = subprocess.Popen(
                command,
                # by the node's name the processes on it are found
                env={**self.environment, "SLURMD_NODENAME": name},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _await_idle(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        idle: set[str] = set()
        while idle != set(self.nodes):
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"the cluster did not start; ended: {ended}, idle: {sorted(idle)}\n{self.logs()}")
            time.sleep(POLL_SECONDS)
            with suppress(RuntimeError):
                idle = set(self.client("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())

    def _stop(self) -> None:
        if self._network:
            self._network.close()
        for machine in self._machines.values():
            machine.off()
        if self._warden:
            self._warden.communicate()
        if self._ports:
            self._ports.close()
        for daemon in self._daemons.values():
            daemon.wait()
        self._machines.clear()
        self._daemons.clear()
        self._network = self._warden = None
        self._lock.close()


def main() -> None:
    """Run the cluster until it is told to stop, or until a command has ended."""
    parser = argparse.ArgumentParser(description="A real SLURM cluster on this machine.")
    parser.add_argument("--folder", type=Path, default=Path("out/slurm"), help="where its logs and state lie")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--gpus", type=int, default=0, help="pretended GPUs of each node")
    parser.add_argument(
        "--hosts",
        action=argparse.BooleanOptionalAction,
        help="each node a machine of its own, or none; without a word: if this user may have that",
    )
    parser.add_argument("command", nargs="*", help="run this in the cluster's environment, then stop")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        Cluster(chosen.folder, chosen.nodes, hosts=chosen.hosts, gpus=chosen.gpus) as cluster,
    ):
        if chosen.command:
            environment = {**os.environ, **cluster.environment}
            sys.exit(subprocess.run(chosen.command, env=environment, check=False).returncode)
        lines = [*(f"export {name}={value}" for name, value in cluster.environment.items())]
        lines += [f"# nodes reach this machine at {cluster.address}"]
        lines += ["# paste these into another shell; Ctrl-C here ends the cluster\n"]
        sys.stdout.write("\n".join(lines))
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
