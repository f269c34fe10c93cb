"""The ledger accounts for all time, and goodput is computed from it."""

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, running, trained

from headway.objectstore import Store
from headway.objectstore.folder import FolderStore
from headway.reports.time_accounting import account_time
from headway.runs import Run
from headway.telemetry.phases import PHASES


def lost(store: Store, run: str) -> dict[int, float]:
    """Lost seconds of the first rank of each attempt."""
    return {line.attempt: line.phases["lost"] for line in account_time(Run(store, run)).rank_times if line.rank == 0}


def test_the_phases_add_up_to_the_wall_clock(headway: Headway, store: FolderStore) -> None:
    """The phases of each rank add up to its wall clock to 0.1 %, for every outcome."""
    trained(Story(store, "tale"))
    document = headway("ledger", "tale", "--json").document
    spans = {(row["attempt"], row["rank"]): row["wall"] for row in document["rows"]}
    assert spans == pytest.approx(
        {(1, 0): 20.5, (1, 1): 20.5, (4, 0): 25, (4, 1): 25}
        | {(6, 0): 5, (6, 1): 5, (6, 2): 5, (7, 0): 25, (10, 0): 21.01}
    )
    for row in document["rows"]:
        assert set(row["phases"]) == set(PHASES)
        assert sum(row["phases"].values()) == pytest.approx(row["wall"], rel=1e-3)
        assert abs(row["difference"]) <= 1e-3 * row["wall"]
    assert document["total"] == pytest.approx(sum(spans.values()), rel=1e-3)


def test_unbooked_time_shows_as_a_difference(headway: Headway, store: FolderStore) -> None:
    """Time that no phase accounts for appears as a difference."""
    story = Story(store, "tale")
    story.claim(100)
    story.ledger(90, 110, {"startup": 10.0, "step": 7.0})
    story.end(110, "preempted", 0)
    (row,) = headway("ledger", "tale", "--json").document["rows"]
    assert row["difference"] == pytest.approx(3)
    assert headway("ledger", "tale").out.splitlines()[-1].endswith("3.000")


def test_what_was_not_committed_is_lost(store: FolderStore) -> None:
    """Lost time lasts until the next claim's `lost_at` after a kill, or until the end of a failed attempt."""
    trained(Story(store, "tale"))
    assert lost(store, "tale") == pytest.approx({1: 0, 4: 7, 6: 5, 7: 6, 10: 0})


def test_the_last_attempt_was_alive_until_its_heartbeat(store: FolderStore) -> None:
    """The time of the last, killed attempt lasts until its heartbeat."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(110, 2000)
    story.ledger(90, 109, {"startup": 10.0, "step": 9.0})
    story.beat(116)
    assert lost(store, "tale") == pytest.approx({1: 7})


def test_a_running_attempt_has_lost_nothing(headway: Headway, store: FolderStore) -> None:
    """Time since the last checkpoint of a running attempt is not lost, and is reported as missing."""
    running(Story(store, "live"))
    answer = headway("ledger", "live", "--json")
    (row,) = answer.document["rows"]
    assert row["phases"]["lost"] == 0
    assert row["wall"] == pytest.approx(25)
    assert answer.document["running"] == 1
    assert "attempt 1 runs" in answer.err
    assert headway("ledger", "live", "--quiet").err == ""


def test_a_hurried_end_loses_what_it_did_not_save(store: FolderStore) -> None:
    """After a second signal an attempt ends without a save, so its last steps are lost."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(110, 2000)
    story.ledger(90, 109, {"startup": 10.0, "step": 9.0})
    story.end(116, "preempted", 3000)
    story.claim(130)
    story.commit(140, 3000)
    story.ledger(120, 141, {"startup": 10.0, "step": 11.0})
    story.end(142, "preempted", 3000)
    assert lost(store, "tale") == pytest.approx({1: 7, 4: 0})


def test_what_a_fenced_attempt_did_is_lost(store: FolderStore) -> None:
    """A fenced attempt's time after the newer claim does not count."""
    story = Story(store, "tale")
    story.claim(100)
    story.ledger(90, 130, {"startup": 10.0, "step": 24.0, "evaluation": 6.0})
    story.claim(120, lost_at=115)
    (line,) = (line for line in account_time(Run(store, "tale")).rank_times if line.attempt == 1)
    assert line.phases == pytest.approx(dict.fromkeys(PHASES, 0.0) | {"startup": 10, "step": 20, "lost": 10})


def test_the_queue_begins_when_the_attempt_before_has_ended(store: FolderStore) -> None:
    """A job's time in the queue counts from the end of the run's previous attempt."""
    story = Story(store, "tale")
    story.claim(100)
    story.ledger(90, 110, {"startup": 10.0, "step": 10.0})
    story.end(110, "preempted", 0)
    story.claim(150)
    story.ledger(80, 160, {"queue": 60.0, "startup": 10.0, "step": 10.0})
    story.end(160, "preempted", 0)
    _, second = account_time(Run(store, "tale")).rank_times
    assert (second.started, second.phases["queue"]) == (110, 30)
    assert second.difference == pytest.approx(0)


def test_goodput_is_the_share_of_steps(headway: Headway, store: FolderStore) -> None:
    """Goodput is the share of steps in rank-time and in wall clock; each column adds up."""
    trained(Story(store, "tale"))
    document = headway("goodput", "tale", "--json").document
    total = 2 * 20.5 + 2 * 25 + 3 * 5 + 25 + 21.01
    assert document["held"] == sum(document["rank_seconds"].values()) == pytest.approx(total)
    assert document["goodput"] == pytest.approx((8 + 7.5 + 7 + 7 + 9 + 10) / total)
    assert document["shares"]["step"] == document["goodput"]
    assert sum(document["shares"].values()) == pytest.approx(1)
    assert document["elapsed"] == pytest.approx(221.01 - 90)
    assert document["wall_goodput"] == pytest.approx(((8 + 7.5) / 2 + 7 + 9 + 10) / (221.01 - 90))
    between = (120 - 110.5) + (160 - 145) + (170 - 165) + (200 - 195)
    assert document["wall_seconds"]["between"] == pytest.approx(between)
    assert sum(document["wall_seconds"].values()) == document["sum"] == pytest.approx(document["elapsed"], rel=1e-3)
    assert document["difference"] == pytest.approx(0, abs=1e-6)


def test_the_queue_counts_for_the_wall_clock_alone(headway: Headway, store: FolderStore) -> None:
    """Time in the queue counts for the wall clock, and not for rank-time."""
    story = Story(store, "tale")
    story.claim(100)
    story.ledger(60, 150, {"queue": 30.0, "startup": 20.0, "step": 40.0})
    story.end(150, "done", 0)
    document = headway("goodput", "tale", "--json").document
    assert document["goodput"] == pytest.approx(40 / 60)
    assert document["wall_goodput"] == pytest.approx(40 / 90)
    assert "queue" not in document["shares"]
    assert document["wall_shares"]["queue"] == pytest.approx(30 / 90)
    assert (document["sum"], document["elapsed"]) == (90, 90)


def test_goodput_explains_what_the_rest_was(headway: Headway, store: FolderStore) -> None:
    """Each phase has a line with its shares and meaning, the longest first; the totals follow."""
    trained(Story(store, "tale"))
    lines = headway("goodput", "tale").out.splitlines()
    first = [line.split()[0] for line in lines]
    assert first[:3] == ["phase", "startup", "between"]
    assert first[-4:] == ["sum", "elapsed", "difference", "goodput"]
    assert "queue" not in first
    assert any("step" in line and "trained" in line for line in lines)
    assert any("lost" in line and "done again" in line for line in lines)
    assert "31.91%" in lines[-1]
    assert "25.76%" in lines[-1]
    assert "0.000 s" in lines[-2]


def test_a_run_without_time_has_no_goodput(headway: Headway, store: FolderStore) -> None:
    """A run that was never claimed has no time, and causes no division by zero."""
    Story(store, "new")
    document = headway("goodput", "new", "--json").document
    assert (document["goodput"], document["wall_goodput"]) == (0, 0)
    assert headway("ledger", "new").code == 0
