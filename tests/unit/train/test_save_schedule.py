"""The interval between saves follows the measured costs, within the bounds of the recipe."""

import time
from itertools import count

import pytest

from headway.recipe import Checkpoint
from headway.runs import Decided, Ended, Entry, Holder, fold
from headway.runs.entries import Claimed, Committed
from headway.train.save_schedule import SaveSchedule, failures, optimal_interval

HOLDER = Holder(host="h", pid=1, started=1, launch="x")


class Past:
    """A journal under construction, with its own clock."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._numbers = count(1)

    def add(self, kind: type, at: float, **fields: object) -> None:
        """Add an entry at a time."""
        seq = next(self._numbers)
        attempt = seq if kind is Claimed else max(e.attempt for e in self.entries)
        self.entries.append(kind(seq=seq, attempt=attempt, time=at, nonce="", previous="", **fields))

    def claim(self, at: float, lost_at: float | None = None) -> None:
        """Begin an attempt."""
        self.add(Claimed, at, holder=HOLDER, recipe="r", lost_at=lost_at)

    def commit(self, at: float) -> None:
        """Commit a checkpoint."""
        self.add(Committed, at, tokens=1, manifest=f"m{at}", sha256="0" * 64, bytes=1)

    def end(self, at: float, outcome: str) -> None:
        """End the attempt."""
        self.add(Ended, at, outcome=outcome, reason="", tokens=1)


@pytest.mark.parametrize(("cost", "between"), [(0.05, 60.0), (1.0, 3600.0), (30.0, 3600.0), (5.0, 86_400.0)])
def test_the_interval_wastes_least(cost: float, between: float) -> None:
    """In Daly's model of the run time, no other interval is better by more than the error of the formula."""
    from math import exp

    def whole(interval: float) -> float:
        """Wall clock per second of work (Daly's equation 20, without the constant factor of restarts)."""
        return between * (exp((interval + cost) / between) - 1) / interval

    chosen = optimal_interval(cost, between)
    best = min(whole(chosen * factor / 100) for factor in range(20, 400))
    assert whole(chosen) <= best * 1.0005


def test_saves_that_cost_more_than_a_failure_happen_once_per_failure() -> None:
    """Outside the range of the formula, the interval is the time between failures."""
    assert optimal_interval(1000.0, 100.0) == 100.0


def test_only_attempts_that_lost_work_count_as_failures() -> None:
    """A kill and a crash count; a preemption that saved, a rollback and the running attempt do not."""
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


def make_schedule(patch: pytest.MonkeyPatch, **plan: object) -> tuple[SaveSchedule, list[float]]:
    """A save schedule, and its clock."""
    now = [1000.0]
    patch.setattr(time, "monotonic", lambda: now[0])
    return SaveSchedule(Checkpoint.model_validate(plan), fold([])), now


def test_the_cost_of_saves_sets_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free saves happen at the minimum interval; expensive ones by the formula, up to the maximum."""
    schedule, _ = make_schedule(monkeypatch, least_seconds=5, most_seconds=500, expect_failure_seconds=3600)
    assert schedule.interval == 5
    schedule.on_step(1.0, saving=False)
    schedule.on_stall(1.5)
    schedule.on_step(1.5, saving=True)  # half a second longer than usual
    schedule.on_save()
    assert schedule.interval == pytest.approx(optimal_interval(2.0, 3600))
    schedule.on_stall(1e6)
    schedule.on_save()
    assert schedule.interval == 500


def test_a_save_is_due_when_the_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not due before, nor during a save, nor if the recipe sets the interval in tokens."""
    schedule, now = make_schedule(monkeypatch, least_seconds=5)
    assert not schedule.is_due(saving=False)
    now[0] += 5
    assert schedule.is_due(saving=False)
    assert not schedule.is_due(saving=True)
    schedule.on_save()
    assert not schedule.is_due(saving=False)
    fixed, now = make_schedule(monkeypatch, least_seconds=5, every_tokens=1024)
    now[0] += 50
    assert not fixed.is_due(saving=False)
