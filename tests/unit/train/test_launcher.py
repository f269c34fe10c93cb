"""The head node finds the root failure from the reports of the other nodes, or from their silence."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import Story

from headway.runs import Run
from headway.telemetry import Trace
from headway.train.host import launcher
from headway.train.host.launcher import previous_trace, root_failure
from headway.train.host.outcome import Failure
from headway.train.host.rank_heartbeat import RankHeartbeat
from headway.train.host.watchdog import NodeReport

LOST_PEER = Failure("RuntimeError", "rank 0: connection closed by peer", None, 1.0)


def root(monkeypatch: pytest.MonkeyPatch, polls: list[dict[int, NodeReport]], ranks: int = 2) -> Failure | None:
    """The root failure on the head node of three, which lost a peer and then gets the reports `polls`, one a poll."""
    monkeypatch.setattr(launcher, "REPORT_SECONDS", 0.2)
    remaining = iter(polls)
    rendezvous = SimpleNamespace(
        is_head=True,
        node=0,
        nodes=3,
        publish_final=lambda _: None,
        shut_down=lambda: None,
        poll=lambda: next(remaining, polls[-1]),
    )
    heartbeats = SimpleNamespace(read=lambda first: [RankHeartbeat(first, "step", 1, 0.0)])
    agent: Any = SimpleNamespace(rendezvous=rendezvous, ranks=ranks, failure=LOST_PEER, heartbeats=heartbeats)
    return root_failure(agent, sequence=5)


@pytest.mark.parametrize(("ranks", "names"), [(1, "rank 1 with it"), (2, "ranks 2 to 3 with it")])
def test_a_node_lost_before_its_ranks_had_heartbeats_is_named_with_them(
    monkeypatch: pytest.MonkeyPatch, ranks: int, names: str
) -> None:
    """Its last report has no ranks, but their numbers follow from the node's."""
    lost = root(monkeypatch, [{1: NodeReport("far", 3)}], ranks)
    assert lost
    assert lost.host == "far"
    assert names in lost.message


def test_a_node_that_still_reports_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it reports no failure, the head node's own failure is the root."""
    assert root(monkeypatch, [{1: NodeReport("far", 3)}, {1: NodeReport("far", 4)}]) == LOST_PEER


def test_a_node_whose_first_report_comes_after_the_failure_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It joins the rendezvous while the others leave it."""
    silent = NodeReport("far", 3)
    lost = root(monkeypatch, [{1: silent}, {1: silent, 2: NodeReport("late", 1)}])
    assert lost
    assert lost.host == "far"
    assert root(monkeypatch, [{1: silent}, {1: NodeReport("far", 4), 2: NodeReport("late", 1)}]) == LOST_PEER


def test_the_cause_is_preferred_to_the_loss_of_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node reports the cause later than this one lost its peer."""
    cause = Failure("", "rank 2 was killed by SIGKILL", "far", 2.0)
    assert root(monkeypatch, [{1: NodeReport("far", 3)}, {1: NodeReport("far", 4, failure=cause)}]) == cause


def test_a_launch_continues_the_trace_of_the_newest_attempt() -> None:
    """Attempts without a valid trace are passed over."""
    story, trace = Story(MemoryStore(), "tale"), Trace.new()

    def before(text: str | None) -> Trace | None:
        story.trace = text
        story.claim(1.0)
        return previous_trace(Run(story.store, story.run).history())

    assert previous_trace(Run(story.store, story.run).history()) is None
    assert before(None) is None
    assert before(str(trace)) == trace
    assert before(None) == trace
    assert before("rubbish") == trace
    newer = Trace.new()
    assert before(str(newer)) == newer
