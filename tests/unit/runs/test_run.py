"""Who may claim a run, by the heartbeat of a process on another machine."""

import time
from collections.abc import Callable

import pytest
from tests.memory import MemoryStore
from tests.unit.runs.small_recipe import recipe

from headway.errors import HeldError
from headway.runs import Heartbeat, Holder, Run, write_heartbeat
from headway.runs.liveness import MAX_SKEW_SECONDS

EVERY = 8.0
OTHER = Holder(host="another machine", pid=1, started=1, launch="first")
OWN = Holder(host="this machine", pid=2, started=2, launch="second")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that another machine claimed an hour ago."""
    run = Run(MemoryStore(), "run")
    run.freeze(recipe())
    an_hour_ago = time.time() - 3600
    with monkeypatch.context() as past:
        past.setattr(time, "time", lambda: an_hour_ago)
        run.claim(OTHER, recipe(), "data")
    return run


def beat(run: Run, age: float, *, every: float = EVERY, attempt: int = 1) -> None:
    """Write a heartbeat that is `age` seconds old by this machine's clock."""
    moment = time.time() - age
    heartbeat = Heartbeat(attempt=attempt, holder=OTHER, phase="step", tokens=0, time=moment, every=every)
    write_heartbeat(run.store, run.name, heartbeat)


def sleeping(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None] = lambda: None) -> list[float]:
    """The sleeps of the code under test; during each of them `meanwhile` happens."""
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        meanwhile()

    monkeypatch.setattr(time, "sleep", sleep)
    return sleeps


@pytest.mark.parametrize(("age", "every"), [(0, EVERY), (20, EVERY), (5, 2.0), (-60, EVERY)])
def test_a_run_with_a_fresh_heartbeat_is_held(
    run: Run, monkeypatch: pytest.MonkeyPatch, age: float, every: float
) -> None:
    """At once, without a second look, and by the interval that its writer recorded."""
    sleeps = sleeping(monkeypatch)
    beat(run, age, every=every)
    with pytest.raises(HeldError, match="process 1 on another machine"):
        run.claim(OWN, recipe(), "data")
    assert not sleeps


def test_a_live_run_whose_clock_is_behind_is_held(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that looks old is watched: one that changes proves that its writer lives."""
    beat(run, 60)
    sleeps = sleeping(monkeypatch, lambda: beat(run, 52))
    with pytest.raises(HeldError):
        run.claim(OWN, recipe(), "data")
    assert sleeps == [2 * EVERY]


@pytest.mark.parametrize("age", [25, 60])
def test_a_run_whose_heartbeat_stands_still_is_free(run: Run, monkeypatch: pytest.MonkeyPatch, age: float) -> None:
    """After two intervals without another heartbeat the run can be claimed."""
    beat(run, age)
    sleeps = sleeping(monkeypatch)
    assert run.claim(OWN, recipe(), "data").attempt == 2
    assert sleeps == [2 * EVERY]


def test_a_run_that_died_long_ago_is_free_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock is so far off, so there is nothing to wait for."""
    beat(run, MAX_SKEW_SECONDS + 1)
    sleeps = sleeping(monkeypatch)
    assert run.claim(OWN, recipe(), "data").attempt == 2
    assert not sleeps


@pytest.mark.parametrize(("age", "alive"), [(20, True), (25, False)])
def test_a_dead_run_is_seen_within_thirty_seconds(
    run: Run, monkeypatch: pytest.MonkeyPatch, age: float, *, alive: bool
) -> None:
    """Three missed heartbeats count as dead, and nobody who only looks waits."""
    sleeps = sleeping(monkeypatch)
    beat(run, age)
    assert run.is_alive(run.history().attempts[-1]) is alive
    assert not sleeps
