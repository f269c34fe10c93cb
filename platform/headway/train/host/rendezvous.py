"""Rendezvous of the nodes of a launch: a TCPStore on the head node, whose address is in the run store.

The head node takes a free port and stores its address under the launch ID. Launch IDs are unique, so ports never
collide and a stale address is never found. Over the same TCPStore the launchers exchange reports about their ranks.
"""

import contextlib
import json
import socket
import threading
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from headway import strict_json
from headway.errors import DamageError, HeadwayError
from headway.objectstore.protocol import get_or_none
from headway.runs import Run, keys
from headway.runs.field_types import Line
from headway.train.host.outcome import Failure
from headway.train.host.rank_heartbeat import RankHeartbeat
from headway.train.host.watchdog import NodeReport

POLL_SECONDS = 0.1
PUBLISH_SECONDS = 1.0
"""Time between two reports of a node [s]."""
CONNECT_SECONDS = 3.0
"""Timeout for a connection to one address of the head node [s]."""
REPLY_SECONDS = 10.0
"""Timeout for a reply of the head node [s]."""
ADDRESS_BYTES = 64 << 10
"""Longest stored address of a head node [bytes]."""


class HeadAddress(BaseModel):
    """Where the head node of a launch waits for the others, as it stores that."""

    model_config = ConfigDict(frozen=True)

    addresses: Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]
    port: Annotated[int, Field(ge=1, le=65_535)]


class Rendezvous:
    """One node's connection to the other nodes of a launch. Node 0 is the head node."""

    def __init__(self, run: Run, launch: str, *, node: int, nodes: int, join_seconds: float) -> None:
        """For `node` of `nodes`; nodes wait `join_seconds` for each other."""
        self.run, self.launch, self.node, self.nodes, self.join_seconds = run, launch, node, nodes, join_seconds
        self.is_head = node == 0
        self._key = keys.rendezvous(run.name, launch)
        self._store: Any = None
        self._address: tuple[str, int] | None = None
        """Address of the head node; None on the head node itself."""
        self._report: NodeReport | None = None
        """Newest report of this node."""
        self._has_report = threading.Event()
        """Set by the first report."""
        self._delivered: NodeReport | None = None
        """Last report that reached the head node."""
        self._last_reply: float | None = None
        """When the head node last replied, by the monotonic clock."""
        self._over = False

    def open(self) -> tuple[str, int]:
        """Join the rendezvous; returns address and port of its TCPStore.

        Raises:
            HeadwayError: the head node did not come in time, or is unreachable.
        """
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        if self.is_head:
            store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, multi_tenant=True)
            if self.nodes > 1:
                head = HeadAddress(addresses=tuple(addresses()), port=store.port)
                self.run.store.put(self._key, [head.model_dump_json().encode()])
            address, port = "localhost", store.port
        else:
            self._address = address, port = self._find_head()
            store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=self.join_seconds))
        store.set_timeout(timedelta(seconds=REPLY_SECONDS))
        self._store = store
        if not self.is_head:
            self._last_reply = time.monotonic()
            threading.Thread(target=self._exchange, name="rendezvous", daemon=True).start()
        return address, port

    def publish(self, report: NodeReport) -> None:
        """Publish this node's report: at once on the head node, elsewhere within `PUBLISH_SECONDS`, the first at once.

        A node that is lost before its first report arrives could not be told from one that never joined.
        """
        self._report = report
        self._has_report.set()
        if self.is_head and self._store and self.nodes > 1:
            self._store.set(f"report/{self.node}", json.dumps(asdict(report)))

    def publish_final(self, report: NodeReport) -> None:
        """Publish the last report, and wait until the head node has it or counts as lost."""
        self.publish(report)
        while self._store and not self.is_head and self._delivered is not report and not self.is_over():
            time.sleep(POLL_SECONDS)

    def poll(self) -> dict[int, NodeReport]:
        """The newest report of each other node that has published one. Head node only."""
        if not self._store or self.nodes == 1:
            return {}
        others = [node for node in range(self.nodes) if node != self.node]
        reporting = [node for node in others if self._store.check([f"report/{node}"])]
        return {node: _decode(self._store.get(f"report/{node}")) for node in reporting}

    def shut_down(self) -> None:
        """Tell all nodes to end the launch. Has an effect on the head node only."""
        if self._store and self.is_head and self.nodes > 1:
            self._store.set("shutdown", "1")

    def is_over(self) -> bool:
        """Whether the head node shut the launch down or no longer replies."""
        silent = self._last_reply is not None and time.monotonic() - self._last_reply > REPLY_SECONDS
        return self._over or silent

    def _exchange(self) -> None:
        """Send reports to the head node until it shuts down. Runs in a thread, because the head node may hang."""
        self._has_report.wait()
        with contextlib.suppress(RuntimeError):
            while not self._over:
                report = self._report
                assert report
                self._store.set(f"report/{self.node}", json.dumps(asdict(report)))
                self._delivered = report
                self._over = bool(self._store.check(["shutdown"]))
                self._last_reply = time.monotonic()
                time.sleep(PUBLISH_SECONDS)
        self._over = True

    def head_lost(self) -> bool:
        """Whether the whole head node is lost. A refused connection means that only its launcher has exited."""
        if self.is_head or self._address is None:
            return False
        try:
            socket.create_connection(self._address, CONNECT_SECONDS).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Delete the address from the run store."""
        if self.is_head and self.nodes > 1:
            with contextlib.suppress(HeadwayError):
                self.run.store.delete(self._key)

    def _find_head(self) -> tuple[str, int]:
        """Address and port of the head node, as soon as it has stored them."""
        deadline = time.monotonic() + self.join_seconds
        while (data := get_or_none(self.run.store, self._key, ADDRESS_BYTES)) is None:
            if time.monotonic() > deadline:
                raise HeadwayError(
                    f"node {self.node} waited {self.join_seconds:.0f} s (machine.join_seconds) for the head node of "
                    f"launch {self.launch}, which has not stored its address in {self.run.store.url}; "
                    f"see the log of the head node"
                )
            time.sleep(POLL_SECONDS)
        try:
            head = HeadAddress.model_validate(strict_json.parse(data))
        except ValueError as error:
            raise DamageError(f"{self._key}: is not the address of a head node; launch the run again") from error
        for address in head.addresses:
            with (
                contextlib.suppress(OSError, UnicodeError),
                socket.create_connection((address, head.port), CONNECT_SECONDS),
            ):
                return address, head.port
        raise HeadwayError(
            f"{socket.gethostname()} cannot reach the head node of launch {self.launch} at any of "
            f"{', '.join(head.addresses)}, port {head.port}; allow connections between the nodes"
        )


def addresses() -> list[str]:
    """Addresses at which other nodes may reach this one, the most likely first."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        resolved = {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        if usable := sorted(address for address in resolved if not address.startswith(("127.", "::1", "fe80"))):
            return usable
    return [name, "localhost"]


def _decode(data: bytes) -> NodeReport:
    fields = json.loads(data)
    failure = fields["failure"] and Failure(**fields["failure"])
    heartbeats = tuple(RankHeartbeat(**heartbeat) for heartbeat in fields["heartbeats"])
    return NodeReport(fields["host"], fields["sequence"], heartbeats, failure)
