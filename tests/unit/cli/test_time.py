"""The ledger accounts for all time, and goodput is read off it."""

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, running, trained

from headway.store import Run, Store
from headway.store.account import account
from headway.store.directory import DirectoryStore
from headway.store.record import PHASES


def lost(store: Store, run: str) -> dict[int, float]:
    """Seconds lost by the first rank of each attempt."""
    return {line.attempt: line.phases["lost"] for line in account(Run(store, run)).lines if line.rank == 0}


def test_the_phases_add_up_to_the_wall_clock(headway: Headway, store: DirectoryStore) -> None:
    """However an attempt ended, the columns of each rank add up to its wall clock, to 0.1 %."""
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


def test_unbooked_time_shows_as_a_difference(headway: Headway, store: DirectoryStore) -> None:
    """Books that do not account for all time are not made to look as if they did."""
    story = Story(store, "tale")
    story.claim(100)
    story.ledger(90, 110, {"startup": 10.0, "step": 7.0})
    story.end(110, "preempted", 0)
    (row,) = headway("ledger", "tale", "--json").document["rows"]
    assert row["difference"] == pytest.approx(3)
    assert headway("ledger", "tale").out.splitlines()[-1].endswith("3.000")


def test_what_was_not_committed_is_lost(store: DirectoryStore) -> None:
    """Killed: from the last row to the next claim's `lost_at`; failed: to the end; no row at all: everything."""
    trained(Story(store, "tale"))
    assert lost(store, "tale") == pytest.approx({1: 0, 4: 7, 6: 5, 7: 6, 10: 0})


def test_the_last_attempt_was_alive_until_its_heartbeat(store: DirectoryStore) -> None:
    """Nobody has claimed a killed run since: its heartbeat says how long it lived."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(110, 2000)
    story.ledger(90, 109, {"startup": 10.0, "step": 9.0})
    story.beat(116)
    assert lost(store, "tale") == pytest.approx({1: 7})


def test_a_running_attempt_has_lost_nothing(headway: Headway, store: DirectoryStore) -> None:
    """Time since the last checkpoint of a live attempt is not lost yet, and is said to be missing."""
    running(Story(store, "live"))
    answer = headway("ledger", "live", "--json")
    (row,) = answer.document["rows"]
    assert row["phases"]["lost"] == 0
    assert row["wall"] == pytest.approx(25)
    assert answer.document["running"] == 1
    assert "attempt 1 runs" in answer.err
    assert headway("ledger", "live", "--quiet").err == ""


def test_goodput_is_the_share_of_steps(headway: Headway, store: DirectoryStore) -> None:
    """Shares of rank-time add up to one; goodput is the share of steps; time when nobody ran is apart."""
    trained(Story(store, "tale"))
    document = headway("goodput", "tale", "--json").document
    total = 2 * 20.5 + 2 * 25 + 3 * 5 + 25 + 21.01
    assert document["rank_seconds"] == pytest.approx(total)
    assert document["goodput"] == pytest.approx((8 + 7.5 + 7 + 7 + 9 + 10) / total)
    assert document["shares"]["step"] == document["goodput"]
    assert sum(document["shares"].values()) == pytest.approx(1)
    assert document["idle"] == pytest.approx((120 - 110.5) + (160 - 145) + (170 - 165) + (200 - 195))
    assert document["elapsed"] == pytest.approx(221.01 - 90)


def test_goodput_explains_what_the_rest_was(headway: Headway, store: DirectoryStore) -> None:
    """Each phase that took time has its share and a line that says what it was, the largest first."""
    trained(Story(store, "tale"))
    lines = headway("goodput", "tale").out.splitlines()
    assert lines[1].split()[0] == "startup"
    assert any("goodput" in line and "trained" in line for line in lines)
    assert any("lost" in line and "done again" in line for line in lines)
    assert not any(line.split()[0] == "queue" for line in lines)
    assert "nobody ran" in lines[-1]


def test_a_run_without_time_has_no_goodput(headway: Headway, store: DirectoryStore) -> None:
    """A run that nobody has begun accounts for nothing, and divides nothing by it."""
    Story(store, "new")
    assert headway("goodput", "new", "--json").document["goodput"] == 0
    assert headway("ledger", "new").code == 0
