"""What the first machine makes of what the others said, or did not say."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import Story

from headway.runs import Run
from headway.telemetry import Trace
from headway.train import launcher
from headway.train.heartbeat import RankHeartbeat
from headway.train.launcher import previous_trace, root_failure
from headway.train.outcome import Failure
from headway.train.watchdog import NodeReport

LOST_PEER = Failure("RuntimeError", "rank 0: connection closed by peer", None, 1.0)


def settled(monkeypatch: pytest.MonkeyPatch, words: list[dict[int, NodeReport]], ranks: int = 2) -> Failure | None:
    """What went wrong by the `words` that the first of several machines hears in turn, having lost a peer."""
    monkeypatch.setattr(launcher, "REPORT_SECONDS", 0.2)
    heard = iter(words)
    meeting = SimpleNamespace(
        first=True, node=0, nodes=3, tell_last=lambda _: None, adjourn=lambda: None, hear=lambda: next(heard, words[-1])
    )
    pulses = SimpleNamespace(signs=lambda first: [RankHeartbeat(first, "step", 1, 0.0)])
    agent: Any = SimpleNamespace(meeting=meeting, ranks=ranks, failure=LOST_PEER, pulses=pulses)
    return root_failure(agent, turn=5)


@pytest.mark.parametrize(("ranks", "called"), [(1, "rank 1 with it"), (2, "ranks 2 to 3 with it")])
def test_a_machine_lost_before_its_ranks_gave_a_sign_is_named_with_them(
    monkeypatch: pytest.MonkeyPatch, ranks: int, called: str
) -> None:
    """Its last word is older than its ranks; which they were is known all the same."""
    lost = settled(monkeypatch, [{1: NodeReport("far", 3)}], ranks)
    assert lost
    assert lost.host == "far"
    assert called in lost.message


def test_a_machine_that_goes_on_talking_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have nothing to say of the failure; then the own one stands, of the peers that know better."""
    assert settled(monkeypatch, [{1: NodeReport("far", 3)}, {1: NodeReport("far", 4)}]) == LOST_PEER


def test_a_machine_first_heard_after_the_failure_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to the meeting as the others leave it."""
    silent = NodeReport("far", 3)
    lost = settled(monkeypatch, [{1: silent}, {1: silent, 2: NodeReport("late", 1)}])
    assert lost
    assert lost.host == "far"
    assert settled(monkeypatch, [{1: silent}, {1: NodeReport("far", 4), 2: NodeReport("late", 1)}]) == LOST_PEER


def test_the_cause_is_preferred_to_the_loss_of_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other machine says what happened, later than this one lost it."""
    cause = Failure("", "rank 2 was killed by SIGKILL", "far", 2.0)
    assert settled(monkeypatch, [{1: NodeReport("far", 3)}, {1: NodeReport("far", 4, failure=cause)}]) == cause


def test_a_run_goes_on_with_the_trace_of_its_attempts() -> None:
    """The newest that there is; attempts of older versions have none, and nobody trusts rubbish."""
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
