"""Nodes meet over a real TCPStore, and the head node hears of each at once."""

import time

import pytest
from tests.memory import MemoryStore

from headway.errors import DamageError
from headway.runs import Run, keys
from headway.train.host import rendezvous
from headway.train.host.rendezvous import Rendezvous
from headway.train.host.watchdog import NodeReport

DEADLINE = 30.0


def test_the_first_report_of_a_node_arrives_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the node has joined before it has anything to report; only later reports wait for their turn."""
    monkeypatch.setattr(rendezvous, "PUBLISH_SECONDS", 10 * DEADLINE)
    run = Run(MemoryStore(), "run")
    head, other = (Rendezvous(run, "launch", node=node, nodes=2, join_seconds=DEADLINE) for node in range(2))
    head.open()
    other.open()
    assert head.poll() == {}
    report = NodeReport("host", 1)
    other.publish(report)
    deadline = time.monotonic() + DEADLINE
    while not (reports := head.poll()):
        assert time.monotonic() < deadline
    assert reports == {1: report}
    head.shut_down()


@pytest.mark.parametrize(
    "address",
    [
        b"[" * 60_000,
        b"{}",
        b'{"addresses": [], "port": 1}',
        b'{"addresses": ["localhost"], "port": 99999}',
        b'{"addresses": "localhost", "port": 9}',
    ],
)
def test_what_is_no_address_of_a_head_node_is_damage(address: bytes) -> None:
    """Anyone who can write the store can write one."""
    run = Run(MemoryStore(), "run")
    run.store.put(keys.rendezvous("run", "launch"), [address])
    with pytest.raises(DamageError, match=r"meetings/launch\.json: is not the address of a head node"):
        Rendezvous(run, "launch", node=1, nodes=2, join_seconds=DEADLINE).open()
