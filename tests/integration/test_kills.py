"""A run that is killed at any moment, in any way, ends with the bits of the run that nobody killed."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.integration.training import Place, Training

SEED = int(os.environ.get("HEADWAY_KILL_SEED", "20261121"))
RUNS = int(os.environ.get("HEADWAY_KILL_RUNS", "8"))
POINTS = 5
"""Kills a run."""
MOMENTS = ("start", "attempt.claimed", "step.done", "evaluation.done", "checkpoint.staged", "checkpoint.committed")
VICTIMS: dict[str, Callable[[Training], list]] = {  # type: ignore[type-arg]
    "launcher": lambda training: training.family()[:1],
    "one rank": lambda training: training.ranks()[-1:],
    "everyone": lambda training: training.family(),
}


@dataclass(frozen=True)
class Point:
    """When and how a run is killed."""

    signal: signal.Signals
    victim: str
    moment: str
    count: int
    """How often the moment passes first."""
    delay: float
    """And how long after it [s]."""
    ranks: int

    @classmethod
    def drawn(cls, dice: random.Random) -> "Point":
        """A random one."""
        moment = dice.choice(MOMENTS)
        return cls(
            signal=dice.choice([signal.SIGTERM, signal.SIGKILL]),
            victim=dice.choice(list(VICTIMS)),
            moment=moment,
            count=dice.randint(1, 14) if moment == "step.done" else dice.randint(1, 2),
            delay=dice.uniform(0.0, 6.0) if moment == "start" else dice.choice([0.0, dice.uniform(0.0, 0.15)]),
            ranks=dice.choice([1, 2, 3]),
        )


def strike(place: Place, point: Point) -> None:
    """Train, and kill at the point; see that what a polite signal promised was kept."""
    training = place.start("run", ranks=point.ranks)
    try:
        if point.moment != "start":
            training.await_event(point.moment, point.count)
        training.await_end(point.delay)
        training.send(point.signal, VICTIMS[point.victim](training))
        code = training.wait()
    finally:
        training.clean_up()
    polite = point.signal == signal.SIGTERM
    claimed = [event for event in training.events if event["event"] == "attempt.claimed"]
    if polite and claimed:
        assert code in {0, 75}, training.said
        last = place.history("run").attempts[-1]
        assert last.ended
        steps = [event["tokens"] for event in training.events if event["event"] == "step.done"]
        assert place.history("run").tokens == last.ended.tokens >= max(steps, default=0), "tokens were lost after TERM"
    elif polite:
        assert code in {75, -signal.SIGTERM}, training.said
    assert not place.history("run").damaged


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RUNS))
def test_a_killed_run_ends_with_the_same_bits(place: Place, unkilled: str, number: int) -> None:
    """Random kills (TERM, KILL; launcher, rank, all; every phase), other world sizes: one fingerprint at the end."""
    print(f"HEADWAY_KILL_SEED={SEED}, run {number}")  # noqa: T201 - a failing seed must be seen
    dice = random.Random(f"{SEED}/{number}")
    for _ in range(POINTS):
        point = Point.drawn(dice)
        print(f"{time.strftime('%X')} {point}")  # noqa: T201
        strike(place, point)
    end = place.train("run", ranks=dice.choice([1, 2, 3, 4]))
    assert end.process.returncode == 0, end.said
    assert place.fingerprint("run") == unkilled
    assert place.findings("run") == []
