"""The first signal requests a stop, a later one an immediate exit; the death of the launcher counts as the first."""

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from headway.runs import this_process
from headway.train.host import preemption as module
from headway.train.host.preemption import IMMEDIATE, STOP, Preemption, record_early_signal


class Wall:
    """Stands in for the `time` module, with time that the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        """Seconds since the machine began."""
        return self.now


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """A clock that the test moves."""
    wall = Wall()
    monkeypatch.setattr(module, "time", wall)
    return wall


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the signal handlers and the early signal."""
    monkeypatch.setattr(module, "early_signal", threading.Event())
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_level_is_zero_at_first() -> None:
    """Without a signal the level is 0."""
    assert Preemption().listen().level == 0


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_each_signal_requests_a_stop(wall: Wall, number: signal.Signals) -> None:
    """They all mean the same, and none ends the process."""
    preemption = Preemption().listen()
    assert wall.now > 0
    signal.raise_signal(number)
    assert preemption.level == STOP


def test_a_hangup_that_is_ignored_stays_ignored(wall: Wall) -> None:
    """As `nohup` has it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    preemption = Preemption().listen()
    signal.raise_signal(signal.SIGHUP)
    assert wall.now > 0
    assert preemption.level == 0


def test_copies_within_a_second_are_one_signal(wall: Wall) -> None:
    """Further signals within a second do not raise the level."""
    preemption = Preemption().listen()
    for _ in range(4):
        signal.raise_signal(signal.SIGTERM)
        wall.now += 0.3
    assert preemption.level == STOP


def test_a_later_signal_requests_an_immediate_exit(wall: Wall) -> None:
    """A second signal of any kind, a second after the first, raises the level for good."""
    preemption = Preemption().listen()
    signal.raise_signal(signal.SIGTERM)
    wall.now += 1.0
    signal.raise_signal(signal.SIGINT)
    assert preemption.level == IMMEDIATE
    signal.raise_signal(signal.SIGTERM)
    assert preemption.level == IMMEDIATE


def test_a_signal_before_the_task_was_known_counts() -> None:
    """A signal that came while the process was starting is not lost."""
    record_early_signal(signal.SIGTERM, None)
    assert Preemption().listen().level == STOP


def test_the_launcher_can_set_the_level() -> None:
    """The shared level needs no signal; the higher of both counts."""
    level = ctypes.c_int(0)
    preemption = Preemption(level, this_process("launch")).listen()
    assert preemption.level == 0
    level.value = IMMEDIATE
    signal.raise_signal(signal.SIGTERM)
    assert preemption.level == IMMEDIATE


def test_the_death_of_the_launcher_requests_a_stop() -> None:
    """Nothing else would stop the rank."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    launcher = this_process("launch").model_copy(update={"pid": process.pid})
    assert Preemption(None, launcher).listen().level == STOP


def test_another_process_with_the_pid_of_the_launcher_is_not_the_launcher() -> None:
    """A reused pid does not keep the ranks of a dead launcher alive."""
    launcher = this_process("launch").model_copy(update={"started": 1})
    assert Preemption(None, launcher).listen().level == STOP
