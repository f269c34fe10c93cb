"""A run that is killed at any moment, in any way, ends with the bits of the run that nobody killed."""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.integration.training import Place, Training

pytestmark = [pytest.mark.slow, pytest.mark.spread]
SEED = int(os.environ.get("HEADWAY_KILL_SEED", "20261121"))
RUNS = {"file": os.environ.get("HEADWAY_KILL_RUNS", "2"), "s3": os.environ.get("HEADWAY_KILL_RUNS", "4")}
START_SECONDS = {"file": 6.0, "s3": 2.0}
"""Within which a killed start is hit; those on files import all that they need, which takes longer."""
CASES = [(kind, number) for kind, runs in RUNS.items() for number in range(int(runs))]
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
    def drawn(cls, dice: random.Random, start_seconds: float) -> "Point":
        """A random one."""
        moment = dice.choice(MOMENTS)
        return cls(
            signal=dice.choice([signal.SIGTERM, signal.SIGKILL]),
            victim=dice.choice(list(VICTIMS)),
            moment=moment,
            count={"step.done": dice.randint(1, 8), "checkpoint.staged": dice.randint(1, 2)}.get(moment, 1),
            delay=dice.uniform(0.0, start_seconds)
            if moment == "start"
            else dice.choice([0.0, dice.uniform(0.0, 0.15)]),
            ranks=dice.choice([1, 2, 3]),
        )


def strike(place: Place, run: str, point: Point, *, cold: bool) -> bool:
    """Train, and kill at the point; see that what a polite signal promised was kept. False if it came too late."""
    training = place.start(run, ranks=point.ranks, cold=cold)
    try:
        if point.moment != "start":
            training.await_event(point.moment, point.count)
        if training.await_end(point.delay):
            return False
        training.send(point.signal, VICTIMS[point.victim](training))
        code = training.wait()
    finally:
        training.clean_up()
    history = place.history(run)
    assert not history.damaged
    if point.signal == signal.SIGTERM and any(event["event"] == "attempt.claimed" for event in training.events):
        assert code in {0, 75}, training.messages
        ended = history.attempts[-1].end
        steps = [event["tokens"] for event in training.events if event["event"] == "step.done"]
        assert ended, training.messages
        assert history.tokens == ended.tokens >= max(steps, default=0), "tokens were lost after TERM"
    elif point.signal == signal.SIGTERM:
        assert code in {75, -signal.SIGTERM}, training.messages
    return True


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_killed_run_ends_with_the_same_bits(
    kind: str, number: int, unkilled: str, request: pytest.FixtureRequest
) -> None:
    """Random kills (TERM, KILL; launcher, rank, all; every phase), other world sizes: one fingerprint at the end."""
    print(f"HEADWAY_KILL_SEED={SEED}, {kind} run {number}")  # noqa: T201 - a failing seed must be seen
    dice = random.Random(f"{SEED}/{number}" if kind == "file" else f"{SEED}/{kind}/{number}")
    place: Place = request.getfixturevalue("place" if kind == "file" else "s3_place")
    runs, hits = ["run-1"], 0
    while hits < POINTS:
        if place.history(runs[-1]).done:
            runs.append(f"run-{len(runs) + 1}")
        point = Point.drawn(dice, START_SECONDS[kind])
        hit = strike(place, runs[-1], point, cold=kind == "file")
        hits += hit
        print(f"{runs[-1]} {'hit' if hit else 'missed'}: {point}")  # noqa: T201
    for run in runs:
        end = place.train(run, ranks=dice.choice([1, 2, 3, 4]))
        assert end.process.returncode == 0, end.messages
        assert place.fingerprint(run) == unkilled
        assert place.findings(run) == []


def test_ranks_whose_launcher_is_killed_save_and_leave(place: Place) -> None:
    """SIGKILL of the launcher alone: the ranks notice, commit what they have, and no process is left behind."""
    training = place.start("run", ranks=2)
    assert training.await_event("step.done", 3), training.messages
    training.send(signal.SIGKILL, training.family()[:1])
    training.wait()
    last = place.history("run").attempts[-1]
    assert last.outcome == "preempted"
    assert place.history("run").tokens >= 3 * 512
