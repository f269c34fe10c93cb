"""A rank that is slowed down while it trains is named, in the log and in `headway status`."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.training import DEADLINE, Place, Training, send_signal

pytestmark = pytest.mark.slow

LONG = ("train.tokens=4194304", "train.schedule.decay_tokens=65536", "evaluation.every_tokens=4194304")
WITHIN = 20
"""Steps."""
STOPPED_SECONDS, LET_SECONDS = 0.04, 0.01


@pytest.fixture
def training(place: Place) -> Iterator[Training]:
    """Two ranks in a run that lasts."""
    begun = place.start("run", *LONG, "machine.heartbeat_seconds=0.2", ranks=2)
    yield begun
    begun.clean_up()


class Brake:
    """Slows a process down: it is stopped for four fifths of the time."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._press)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()

    def _press(self) -> None:
        while not self._released.wait(LET_SECONDS) and self.process.is_running():
            send_signal(signal.SIGSTOP, [self.process])
            self._released.wait(STOPPED_SECONDS)
            send_signal(signal.SIGCONT, [self.process])


def status(place: Place) -> str:
    """Who is slow, by `headway status`."""
    command = [sys.executable, "-m", "headway.cli", "status", "run", "--store", str(place.store), "--json"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout
    return str(json.loads(output)["holder"]["slow"])


def steps(training: Training) -> int:
    """How many were made."""
    return [event["event"] for event in training.events].count("step.done")


@pytest.mark.parametrize("slow", [0, 1])
def test_a_rank_that_is_slowed_down_is_named_within_twenty_steps(place: Place, training: Training, slow: int) -> None:
    """Whether it is the one that writes the log or another; and it is told when it has recovered."""
    assert training.await_event("step.done", 30)
    with Brake(training.ranks()[slow]):  # they are started in their order
        before = steps(training)
        assert training.await_event("step.done", before + WITHIN + 1)
        event = [event for event in training.events if event["event"] == "rank.slow"][-1]
        assert event["rank"] == slow
        assert event["cost"] > 1
        assert training.await_event("step.done", steps(training) + 5)  # a heartbeat or two
        assert status(place) == f"rank {slow} on {event['host']} takes {event['factor']} times as long as the others"
    assert training.await_event("rank.recovered")
    training.send(signal.SIGTERM, training.family()[:1])
    assert training.wait() == 75
