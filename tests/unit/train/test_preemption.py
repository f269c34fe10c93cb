"""A signal asks to stop; a second one, later, asks to hurry; a dead launcher asks, too."""

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from headway.runs import this_process
from headway.train import preemption as module
from headway.train.preemption import IMMEDIATE, SIGNALS, STOP, Preemption, remember_early


class Wall:
    """Stands in for the `time` module, because real time passes as it likes."""

    now = 1000.0

    def monotonic(self) -> float:
        """Seconds since the machine began."""
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """A clock that the test moves."""
    found = Wall()
    monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives the signals, and the memory of early ones, back to the process as they were."""
    monkeypatch.setattr(module, "early", threading.Event())
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nobody_has_asked_at_first() -> None:
    """The level of a process that no one spoke to is 0."""
    assert Preemption().listen().level == 0


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_each_signal_asks_to_stop(wall: Wall, number: signal.Signals) -> None:
    """SIGTERM, SIGINT and SIGUSR1 mean the same, and none ends the process."""
    preemption = Preemption().listen()
    assert wall.now > 0
    signal.raise_signal(number)
    assert preemption.level == STOP


def test_copies_within_a_second_are_one_signal(wall: Wall) -> None:
    """What several routes bring within a second of the first does not ask to hurry."""
    preemption = Preemption().listen()
    for _ in range(4):
        signal.raise_signal(signal.SIGTERM)
        wall.now += 0.3
    assert preemption.level == STOP


def test_a_later_signal_asks_to_hurry(wall: Wall) -> None:
    """A second signal, of any kind, a second after the first asks to hurry, and that stays."""
    preemption = Preemption().listen()
    signal.raise_signal(signal.SIGTERM)
    wall.now += 1.0
    signal.raise_signal(signal.SIGINT)
    assert preemption.level == IMMEDIATE
    signal.raise_signal(signal.SIGTERM)
    assert preemption.level == IMMEDIATE


def test_a_signal_before_the_task_was_known_counts() -> None:
    """A signal that came while the process was starting is not lost."""
    remember_early(signal.SIGTERM, None)
    assert Preemption().listen().level == STOP


def test_the_launcher_asks_through_its_flag() -> None:
    """The shared flag asks without any signal, and the more urgent of the two counts."""
    flag = ctypes.c_int(0)
    preemption = Preemption(flag, this_process("launch")).listen()
    assert preemption.level == 0
    flag.value = IMMEDIATE
    signal.raise_signal(signal.SIGTERM)
    assert preemption.level == IMMEDIATE


def test_a_dead_launcher_asks_to_stop() -> None:
    """A rank whose launcher is gone stops, for nobody else would tell it."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    launcher = this_process("launch").model_copy(update={"pid": gone.pid})
    assert Preemption(None, launcher).listen().level == STOP


def test_another_process_with_the_pid_of_the_launcher_is_not_the_launcher() -> None:
    """A pid that was given again does not keep the ranks of a dead launcher alive."""
    launcher = this_process("launch").model_copy(update={"started": 1})
    assert Preemption(None, launcher).listen().level == STOP
