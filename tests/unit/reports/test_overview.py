"""The overview by heartbeats equals the one by journal, log and ledgers; runs without a summary are read whole."""

import time
from collections.abc import Mapping

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import BUDGET, Story, running, said, step, trained

from headway.events.training_events import AttemptClaimed, AttemptEnded, EvaluationDone, StepDone
from headway.reports.overview import RunOverview, overview
from headway.reports.summary import SummaryBuilder
from headway.reports.time_accounting import TimeAccounting, account_time
from headway.runs import Heartbeat, Run, keys, read_heartbeat
from headway.runs.ledger import LedgerRow

PHASES: Mapping[str, float] = {"startup": 10.0, "step": 30.0}


def step_done(loss: float) -> StepDone:
    """The event of a step."""
    return StepDone(loss=loss, norm=1.0, learning_rate=1e-3, tokens_per_second=500.0)


def attempt(story: Story, began: float, tokens: int, outcome: str | None, *, loss: float = 3.0) -> SummaryBuilder:
    """Write an attempt with the heartbeats that a trainer writes; returns its summary builder."""
    number = story.claim(began)
    builder = SummaryBuilder(Run(story.store, story.run), number, BUDGET)
    builder.handle(AttemptClaimed(ranks=1))
    builder.handle(step_done(loss))
    builder.handle(EvaluationDone(held_out=loss + 1))
    story.say(step(tokens, loss), said(EvaluationDone(held_out=loss + 1), tokens=tokens))
    story.commit(began + 40, tokens)
    story.ledger(began, began + 40, PHASES)
    builder.record_ledger(
        [LedgerRow(attempt=number, rank=0, started=began, until=began + 40, phases=PHASES, tokens=tokens)]
    )
    if outcome:
        story.end(began + 40, outcome, tokens)
        builder.handle(AttemptEnded(outcome=outcome, reason="asked to stop"))
    story.beat(began + 40, tokens, summary=builder.build())
    return builder


class Counting(MemoryStore):
    """Records the keys that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object."""
        self.reads.append(key)
        return super().get(key, start, length)


def without_heartbeat(run: Run) -> RunOverview:
    """The overview of a run by journal, log and ledgers."""
    store = MemoryStore()
    store.objects = {key: data for key, data in run.store.objects.items() if "heartbeat" not in key}  # type: ignore[attr-defined]
    (found,) = overview(store, [run.name])
    return found


@pytest.mark.parametrize("outcome", ["done", "preempted", "failed"])
def test_a_run_that_ended_in_order_is_read_at_one_object(outcome: str) -> None:
    """The heartbeat holds what the whole history says."""
    store = Counting()
    story = Story(store, "run")
    attempt(story, 100, 2000, "preempted")
    attempt(story, 200, 4000, None)  # killed
    attempt(story, 300, 6000, "failed")
    attempt(story, 400, 8000, outcome, loss=1.5)
    store.reads.clear()
    (found,) = overview(store, ["run"])
    assert store.reads == [keys.heartbeat("run")]
    assert found == without_heartbeat(Run(store, "run"))
    assert (found.state, found.tokens, found.loss, found.held_out) == (outcome, 8000, 1.5, 2.5)
    assert found.attempts == 4
    assert found.goodput == account_time(Run(store, "run")).goodput


def test_a_live_run_is_read_at_one_object() -> None:
    """Its heartbeat holds its position."""
    store = Counting()
    story = Story(store, "run")
    attempt(story, 100, 2000, "preempted")
    builder = attempt(story, 200, 4000, None)
    story.beat(time.time(), 4500, every=60, summary=builder.build())
    store.reads.clear()
    (found,) = overview(store, ["run"])
    assert store.reads == [keys.heartbeat("run")]
    assert (found.state, found.tokens, found.preemptions, found.failures) == ("running", 4500, 1, 0)
    assert found.share == 0.45


def test_a_run_that_died_without_an_end_takes_its_journal() -> None:
    """It was killed, unless its launcher recorded a failure or a new attempt has started."""
    store = Counting()
    killed, failed, anew = Story(store, "killed"), Story(store, "failed"), Story(store, "anew")
    for story in (killed, failed, anew):
        builder = attempt(story, 100, 2000, None)
        story.beat(145, 2600, summary=builder.build())  # more than is committed
    failed.end(150, "failed", 2000, "rank 0 was killed by SIGKILL")
    anew.claim(200)
    anew.commit(240, 4000)
    store.reads.clear()
    found = overview(store, ["killed", "failed"])
    assert not any("ledger" in key or "log" in key or "recipe" in key for key in store.reads)
    found += overview(store, ["anew"])
    assert [(each.state, each.tokens, each.failures, each.last_seen, each.reason) for each in found] == [
        ("killed", 2000, 1, 145, ""),
        ("failed", 2000, 1, 150, "rank 0 was killed by SIGKILL"),
        ("killed", 4000, 2, 240, ""),
    ]


def test_runs_without_a_summary_are_read_whole() -> None:
    """From an older Headway, just started, or with a damaged heartbeat; rows keep the given order."""
    store = MemoryStore()
    trained(Story(store, "old"))
    running(Story(store, "live"))
    Story(store, "new")
    trained(Story(store, "torn"))
    store.put(keys.heartbeat("torn"), [b"{"])
    found = overview(store, ["live", "new", "old", "torn"])
    assert [(each.run, each.state) for each in found] == [
        ("live", "running"), ("new", "new"), ("old", "done"), ("torn", "done"),
    ]  # fmt: skip
    assert found[2] == without_heartbeat(Run(store, "old"))
    assert (found[2].preemptions, found[2].failures, found[2].attempts) == (1, 3, 5)
    assert overview(store, []) == []


def test_a_summary_continues_from_the_last_heartbeat() -> None:
    """A new attempt reads only the ledgers since that heartbeat."""
    store = Counting()
    story = Story(store, "run")
    for number in range(5):
        attempt(story, 100 * number, 1000, "preempted")
    number = story.claim(1000)
    store.reads.clear()
    summary = SummaryBuilder(Run(store, "run"), number, BUDGET).build()
    assert {key for key in store.reads if "ledger" in key} == {
        keys.ledger("run", each) for each in (number - 3, number)
    }
    books = TimeAccounting([line for line in account_time(Run(store, "run")).rank_times if line.attempt < number], None)
    assert (summary.earlier_step, summary.earlier_total) == (books.phases["step"], books.total)
    assert (summary.attempts, summary.preemptions, summary.failures, summary.loss) == (6, 5, 0, 3.0)


def test_a_loss_that_is_not_finite_does_not_break_a_heartbeat() -> None:
    """It is stored as null."""
    store = MemoryStore()
    story = Story(store, "run")
    story.claim(100)
    builder = SummaryBuilder(Run(store, "run"), 1, BUDGET)
    builder.handle(step_done(float("nan")))
    story.beat(100, summary=builder.build())
    beat = read_heartbeat(store, "run")
    assert isinstance(beat, Heartbeat)
    assert beat.summary
    assert beat.summary.loss is None
    assert beat.summary.goodput is None
