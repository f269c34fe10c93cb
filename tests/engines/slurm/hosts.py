"""Machines on this machine: each with a host name, a network and processes of its own, on one Ethernet switch.

A machine is a set of Linux namespaces, held by an init process. When its init ends, the kernel ends all that is in it
and removes its network; an init ends when the process that started it does. So nothing needs to be tidied up, however
the owner ends. Nothing here has a name outside but one link, by which this machine reaches the others.
"""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

NAMESPACES = ("--pid", "--net", "--uts", "--mount")
UNSHARE = ("unshare", "--fork", "--mount-proc", *NAMESPACES)
MEMORY = Path("/dev/shm")  # noqa: S108 - a machine has one of its own
"""Where a machine keeps files that go with it."""
NETWORKS = range(256)


class Host:
    """A machine that is on."""

    def __init__(self, name: str, files: Mapping[str, Path], environment: Mapping[str, str], log: Path) -> None:
        """Switch it on; `files` are what it has in place of this machine's, `log` takes what goes wrong meanwhile."""
        self.name, self._environment = name, dict(environment)
        mounts = [
            f"mount --bind {shlex.quote(str(ours))} {path}" for path, ours in files.items() if Path(path).exists()
        ]
        script = "; ".join(
            [
                "set -e",
                f"echo {name} >/proc/sys/kernel/hostname",
                f"mount -t tmpfs tmpfs {MEMORY}",
                *mounts,
                "ip link set lo up",
                "echo up",
                "exec >/dev/null",
                # bash as the first process takes in orphans, as an init does, while it waits
                "while true; do sleep infinity & wait; done",
            ]
        )
        with log.open("ab") as file:
            self._outside = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *UNSHARE, "--kill-child=KILL", "bash", "-c", script],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        assert self._outside.stdout
        with self._outside.stdout as output:
            up = output.readline() == b"up\n"
        if not up:
            self._outside.kill()
            self._outside.wait()
            raise RuntimeError(f"{name} did not start: {log.read_text(encoding='utf-8', errors='replace')}")
        self.pid: int = psutil.Process(self._outside.pid).children()[0].pid
        """Of its init, as this machine counts."""

    def start(self, command: Sequence[str | Path], log: Path) -> "subprocess.Popen[bytes]":
        """Start a daemon on it; the process returned is a door-keeper outside, and ends with the daemon."""
        with log.open("ab") as file:
            return subprocess.Popen(
                ["nsenter", f"--target={self.pid}", *NAMESPACES, "--", *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def off(self) -> None:
        """Cut its power: returns when none of its processes exists any more."""
        if self._outside.poll() is None:
            psutil.Process(self.pid).kill()
            self._outside.wait()


class Network:
    """A switch, and the cables to it. It stands in a machine of its own, which has the address `.253`."""

    def __init__(self, switch: Host) -> None:
        """Lay the network; this machine gets the address `.254` and the only link that is seen outside."""
        self._switch = switch
        known = {one.address.rpartition(".")[0] for link in psutil.net_if_addrs().values() for one in link}
        for third in NETWORKS:
            self.prefix, self._link = f"10.213.{third}", f"headway{third}"
            if self.prefix in known:
                continue
            # The link's name stands for the addresses: another test session that has taken them has taken it, too.
            if _ip([f"link add name {self._link} type veth peer name uplink netns {switch.pid}"], check=False):
                break
        else:
            raise RuntimeError("no network is free: `ip link` lists headway0 to headway255")
        self.address = f"{self.prefix}.254"
        _ip([f"addr add {self.address}/24 dev {self._link}", f"link set {self._link} up"])
        _ip(
            [
                "link add name switch type bridge",
                f"addr add {self.prefix}.253/24 dev switch",
                "link set switch up",
                "link set uplink master switch up",
            ],
            switch,
        )

    def join(self, host: Host, number: int) -> None:
        """Connect a machine that has just been switched on; it gets the address that ends in `number`."""
        _ip([f"link add name {host.name} type veth peer name eth0 netns {host.pid}"], self._switch)
        # always the same hardware address: others remember it over a power cut
        _ip(
            [
                f"link set eth0 address 02:00:00:00:00:{number:02x} up",
                f"addr add {self.prefix}.{number}/24 dev eth0",
                f"route add default via {self.address}",
            ],
            host,
        )
        _ip([f"link set {host.name} master switch up"], self._switch)

    def leave(self, host: Host) -> None:
        """Take a machine's cable away, so that its end is not heard by the others."""
        _ip([f"link del {host.name}"], self._switch)

    def plug(self, host: Host, state: str) -> None:
        """Put a machine's cable `up` or `down`."""
        _ip([f"link set {host.name} {state}"], self._switch)

    def close(self) -> None:
        """Remove this machine's link; the rest ends with the machines."""
        _ip([f"link del {self._link}"], check=False)


def available() -> bool:
    """Whether this user may make such machines here."""
    links = "ip link add name a type bridge && ip link add name b type veth peer name c"
    script = f"{links} && mount -t tmpfs tmpfs {MEMORY}"
    try:
        return subprocess.run([*UNSHARE, "sh", "-c", script], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _ip(lines: Sequence[str], host: Host | None = None, *, check: bool = True) -> bool:
    """Have `ip` carry out lines here or on a machine; whether it did."""
    inside = ["nsenter", f"--target={host.pid}", "--net"] if host else []
    done = subprocess.run(
        [*inside, "ip", "-batch", "-"], input="\n".join(lines) + "\n", check=False, capture_output=True, text=True
    )
    if check and done.returncode:
        raise RuntimeError(f"ip failed on {host.name if host else 'this machine'}: {done.stderr.strip()}")
    return done.returncode == 0
