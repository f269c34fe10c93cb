"""Where the machines of one launch meet: a TCPStore on the first of them, whose address is in the run store.

The first machine takes any free port and writes the address under the launch's id, which nobody uses twice: ports
never collide, and nothing that an earlier launch left behind can be taken for this one. Over the same store the
launchers tell each other how their ranks are.
"""

import contextlib
import json
import socket
import threading
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from headway.errors import HeadwayError
from headway.objectstore.protocol import get_or_none
from headway.runs import Run, keys
from headway.train.heartbeat import RankHeartbeat
from headway.train.outcome import Failure
from headway.train.watchdog import NodeReport

POLL_SECONDS = 0.1
TURN_SECONDS = 1.0
"""How often the machines tell each other how they are [s]."""
CONNECT_SECONDS = 3.0
"""How long one address of the first machine is tried [s]."""
ANSWER_SECONDS = 10.0
"""How long the first machine may take to answer [s]."""


class Rendezvous:
    """One machine's place among the machines of a launch."""

    def __init__(self, run: Run, launch: str, *, node: int, nodes: int, patience: float) -> None:
        """For machine `node`, from 0, of `nodes`; the others are waited for `patience` seconds."""
        self.run, self.launch, self.node, self.nodes, self.patience = run, launch, node, nodes, patience
        self.first = node == 0
        self._key = keys.rendezvous(run.name, launch)
        self._store: Any = None
        self._address: tuple[str, int] | None = None
        self._word: NodeReport | None = None
        self._told: NodeReport | None = None
        self._answered: float | None = None
        self._dismissed = False

    def open(self) -> tuple[str, int]:
        """Come to the meeting; returns the address and port of its store.

        Raises:
            HeadwayError: the first machine did not come in time, or cannot be reached.
        """
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        if self.first:
            store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, multi_tenant=True)
            found = addresses() if self.nodes > 1 else ["localhost"]
            if self.nodes > 1:
                said = {"addresses": found, "port": store.port}
                self.run.store.put(self._key, [json.dumps(said).encode()])
            address, port = "localhost", store.port
        else:
            self._address = address, port = self._find()
            store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=self.patience))
        store.set_timeout(timedelta(seconds=ANSWER_SECONDS))
        self._store = store
        if not self.first:
            self._answered = time.monotonic()
            threading.Thread(target=self._converse, name="meeting", daemon=True).start()
        return address, port

    def publish(self, word: NodeReport) -> None:
        """Say how this machine is: at once from the first one, else with the next turn of the conversation."""
        self._word = word
        if self.first and self._store and self.nodes > 1:
            self._store.set(f"word/{self.node}", json.dumps(asdict(word)))

    def publish_final(self, word: NodeReport) -> None:
        """Say the last word, and wait until it has been heard, or the first machine counts as gone."""
        self.publish(word)
        while self._store and not self.first and self._told is not word and not self.is_over():
            time.sleep(POLL_SECONDS)

    def poll(self) -> dict[int, NodeReport]:
        """The last word of each other machine that has spoken; on the first one."""
        if not self._store or self.nodes == 1:
            return {}
        others = [node for node in range(self.nodes) if node != self.node]
        spoken = [node for node in others if self._store.check([f"word/{node}"])]
        return {node: _word(self._store.get(f"word/{node}")) for node in spoken}

    def shut_down(self) -> None:
        """Send all machines home; the first one's to say."""
        if self._store and self.first and self.nodes > 1:
            self._store.set("over", "1")

    def is_over(self) -> bool:
        """Whether the first machine has sent all home, or does not answer any more."""
        silent = self._answered is not None and time.monotonic() - self._answered > ANSWER_SECONDS
        return self._dismissed or silent

    def _converse(self) -> None:
        """Talk with the first machine until it is gone. Not in the main thread: it may never answer."""
        with contextlib.suppress(RuntimeError):
            while not self._dismissed:
                if word := self._word:
                    self._store.set(f"word/{self.node}", json.dumps(asdict(word)))
                    self._told = word
                self._dismissed = bool(self._store.check(["over"]))
                self._answered = time.monotonic()
                time.sleep(TURN_SECONDS)
        self._dismissed = True

    def head_lost(self) -> bool:
        """Whether the first machine is gone: not its launcher, which a refused connection would tell, but all of it."""
        if self.first or self._address is None:
            return False
        try:
            socket.create_connection(self._address, CONNECT_SECONDS).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Take the address out of the run store: nobody comes to this meeting any more."""
        if self.first and self.nodes > 1:
            with contextlib.suppress(HeadwayError):
                self.run.store.delete(self._key)

    def _find(self) -> tuple[str, int]:
        """The first machine's address and port, once it has said them."""
        deadline = time.monotonic() + self.patience
        while (data := get_or_none(self.run.store, self._key)) is None:
            if time.monotonic() > deadline:
                raise HeadwayError(
                    f"machine {self.node} waited {self.patience:.0f} s (machine.join_seconds) for the first machine of "
                    f"launch {self.launch}, which never said where it is in {self.run.store.url}"
                )
            time.sleep(POLL_SECONDS)
        said = json.loads(data)
        for address in said["addresses"]:
            with contextlib.suppress(OSError), socket.create_connection((address, said["port"]), CONNECT_SECONDS):
                return address, said["port"]
        raise HeadwayError(
            f"{socket.gethostname()} cannot reach the first machine of launch {self.launch} at any of "
            f"{', '.join(said['addresses'])}, port {said['port']}; see that machines may connect to each other"
        )


def addresses() -> list[str]:
    """Addresses at which other machines may reach this one, the likeliest first."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        if usable := sorted(address for address in found if not address.startswith(("127.", "::1", "fe80"))):
            return usable
    return [name, "localhost"]


def _word(data: bytes) -> NodeReport:
    fields = json.loads(data)
    failure = fields["failure"] and Failure(**fields["failure"])
    return NodeReport(fields["host"], fields["turn"], tuple(RankHeartbeat(**sign) for sign in fields["signs"]), failure)
