"""Saving as often as pays off: the interval follows what was measured, and stays within the recipe's bounds."""

import time
from itertools import count

import pytest

from headway.recipe import Checkpoint
from headway.runs import Decided, Ended, Entry, Holder, fold
from headway.runs.entries import Claimed, Committed
from headway.train.cadence import Cadence, failures, optimal_interval

HOLDER = Holder(host="h", pid=1, started=1, launch="x")


class Past:
    """A journal in the making, with a clock of its own."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._numbers = count(1)

    def add(self, kind: type, at: float, **fields: object) -> None:
        """An entry at a moment."""
        seq = next(self._numbers)
        attempt = seq if kind is Claimed else max(e.attempt for e in self.entries)
        self.entries.append(kind(seq=seq, attempt=attempt, time=at, nonce="", previous="", **fields))

    def claim(self, at: float, lost_at: float | None = None) -> None:
        """An attempt begins."""
        self.add(Claimed, at, holder=HOLDER, recipe="r", lost_at=lost_at)

    def commit(self, at: float) -> None:
        """A checkpoint."""
        self.add(Committed, at, tokens=1, manifest=f"m{at}", sha256="", bytes=1)

    def end(self, at: float, outcome: str) -> None:
        """The attempt says how it ended."""
        self.add(Ended, at, outcome=outcome, reason="", tokens=1)


@pytest.mark.parametrize(("cost", "between"), [(0.05, 60.0), (1.0, 3600.0), (30.0, 3600.0), (5.0, 86_400.0)])
def test_the_interval_wastes_least(cost: float, between: float) -> None:
    """By Daly's model of the whole run time, no other interval is better by more than the formula's own error."""
    from math import exp

    def whole(interval: float) -> float:
        """Wall clock per second of work (Daly's equation 20, without the constant factor of restarts)."""
        return between * (exp((interval + cost) / between) - 1) / interval

    chosen = optimal_interval(cost, between)
    best = min(whole(chosen * factor / 100) for factor in range(20, 400))
    assert whole(chosen) <= best * 1.0005


def test_saves_that_cost_more_than_a_life_are_made_once_a_life() -> None:
    """Beyond the range of the formula, the interval is the time between failures."""
    assert optimal_interval(1000.0, 100.0) == 100.0


def test_only_attempts_that_lost_work_count_as_failures() -> None:
    """A kill and a crash count; a preemption that saved, a roll-back, and the attempt that runs do not."""
    past = Past()
    past.claim(0.0)
    past.commit(50.0)
    past.claim(100.0, lost_at=60.0)  # killed after a minute
    past.end(130.0, "preempted")
    past.claim(200.0)
    past.end(210.0, "failed")
    past.claim(300.0)
    past.add(
        Decided, 320.0, action="rollback", reason="", skip_from=0, skip_to=1, restored=0
    )  # and the next claim follows it
    past.claim(320.0)
    past.commit(325.0)
    assert failures(fold(past.entries)) == (2, 60.0 + 30.0 + 10.0 + 20.0 + 5.0)


def cadence(patch: pytest.MonkeyPatch, **plan: object) -> tuple[Cadence, list[float]]:
    """A cadence, and its clock."""
    now = [1000.0]
    patch.setattr(time, "monotonic", lambda: now[0])
    return Cadence(Checkpoint.model_validate(plan), fold([])), now


def test_what_saves_cost_moves_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free saves are made as often as the recipe allows; dear ones less often, by the formula; within its bounds."""
    found, _ = cadence(monkeypatch, least_seconds=5, most_seconds=500, expect_failure_seconds=3600)
    assert found.interval == 5
    found.stepped(1.0, saving=False)
    found.stalled(1.5)
    found.stepped(1.5, saving=True)  # half a second longer than usual
    found.begin()
    assert found.interval == pytest.approx(optimal_interval(2.0, 3600))
    found.stalled(1e6)
    found.begin()
    assert found.interval == 500


def test_a_save_is_wished_for_when_the_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, not while the one before is on its way, and not where the recipe counts tokens."""
    found, now = cadence(monkeypatch, least_seconds=5)
    assert not found.wish(saving=False)
    now[0] += 5
    assert found.wish(saving=False)
    assert not found.wish(saving=True)
    found.begin()
    assert not found.wish(saving=False)
    fixed, now = cadence(monkeypatch, least_seconds=5, every_tokens=1024)
    now[0] += 50
    assert not fixed.wish(saving=False)
