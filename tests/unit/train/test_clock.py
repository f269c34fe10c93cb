"""Every second of a rank is in exactly one phase."""

import random
import time

import pytest

from headway.telemetry.phases import PHASES
from headway.train import clock as module
from headway.train.clock import Clock, parse_queue_times


class Wall:
    """Stands in for the `time` module, with time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds since the machine began."""
        return self.now

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now + 1e6


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """A wall clock that the test moves."""
    clock = Wall()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize("seed", range(5))
def test_the_phases_add_up_to_the_time_that_passed(wall: Wall, seed: int) -> None:
    """Whatever phases are entered and whenever the row is read, its seconds add up to `until - started`."""
    dice = random.Random(seed)
    clock = Clock(wall.time() - dice.random())
    for _ in range(500):
        wall.now += dice.random()
        clock.enter(dice.choice(PHASES))
        if dice.random() < 0.1:
            row = clock.ledger_row(1, 0, 0)
            assert sum(row.phases.values()) == pytest.approx(row.until - row.started, abs=1e-6)
    wall.now += 1.0
    row = clock.ledger_row(7, 3, 64)
    assert row.until == pytest.approx(wall.time(), abs=1e-6)
    assert sum(row.phases.values()) == pytest.approx(row.until - row.started, abs=1e-6)
    assert (row.attempt, row.rank, row.tokens) == (7, 3, 64)


def test_the_real_clock_adds_up() -> None:
    """The sum also holds with real clocks."""
    clock = Clock(time.time() - 5.0)
    for phase in PHASES:
        clock.enter(phase)
    row = clock.ledger_row(1, 0, 0)
    assert sum(row.phases.values()) == pytest.approx(row.until - row.started, abs=1e-6)


def test_time_before_the_first_phase_is_startup(wall: Wall) -> None:
    """The time from the launch to the start of this process counts as `startup`."""
    clock = Clock(wall.time() - 3.0)
    wall.now += 2.0
    clock.enter("step")
    wall.now += 4.0
    assert clock.ledger_row(1, 0, 0).phases == pytest.approx({"startup": 5.0, "step": 4.0})


def test_a_block_is_spent_in_its_phase(wall: Wall) -> None:
    """`during` returns to the previous phase, even if nested."""
    clock = Clock(wall.time())
    clock.enter("step")
    with clock.during("data"):
        wall.now += 1.0
        with clock.during("checkpoint"):
            wall.now += 2.0
            assert clock.phase == "checkpoint"
        assert clock.phase == "data"
    wall.now += 4.0
    assert clock.phase == "step"
    assert clock.ledger_row(1, 0, 0).phases == pytest.approx({"data": 1.0, "checkpoint": 2.0, "step": 4.0})


def test_a_failed_block_returns_to_the_previous_phase(wall: Wall) -> None:
    """An error inside `during` propagates, and the previous phase continues."""
    clock = Clock(wall.time())

    def fail() -> None:
        with clock.during("restore"):
            wall.now += 1.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert clock.phase == "startup"
    assert clock.ledger_row(1, 0, 0).phases == pytest.approx({"restore": 1.0})


def test_the_row_begins_with_the_queue(wall: Wall) -> None:
    """The time from submission to start is `queue`; the time from there to the first phase is `startup`."""
    clock = Clock(wall.time() - 3.0, (wall.time() - 60.0, wall.time() - 10.0))
    wall.now += 2.0
    clock.enter("step")
    wall.now += 4.0
    row = clock.ledger_row(1, 0, 0)
    assert row.started == wall.time() - 66.0
    assert row.until == pytest.approx(wall.time(), abs=1e-6)
    assert row.phases == pytest.approx({"queue": 50.0, "startup": 12.0, "step": 4.0})


@pytest.mark.parametrize(("submitted", "started"), [(-60, 20), (5, 20), (5, -10), (-3, -3)])
def test_a_queue_that_contradicts_the_launch_gives_way(wall: Wall, submitted: float, started: float) -> None:
    """Another machine's clock may be wrong: rows never begin after the launch, and always add up."""
    launched = wall.time()
    wall.now += 1.0
    clock = Clock(launched, (launched + submitted, launched + started))
    row = clock.ledger_row(1, 0, 0)
    assert row.started <= launched
    assert row.until == pytest.approx(wall.time(), abs=1e-6)
    assert sum(row.phases.values()) == pytest.approx(row.until - row.started, abs=1e-6)
    assert min(row.phases.values()) > 0


@pytest.mark.parametrize("text", [None, "", ":", "7", "a:b", "1:2:3", "nan:5", "5:nan", "5:inf", "0:5", "-5:5", "6:5"])
def test_invalid_queue_times_are_none(text: str | None) -> None:
    """SLURM may report `Unknown` and worse; the row then has no queue time."""
    assert parse_queue_times(text) is None


def test_queue_times_are_two_times() -> None:
    """They have the format of `headway job`."""
    assert parse_queue_times("1763700000:1763700060.5") == (1763700000.0, 1763700060.5)
