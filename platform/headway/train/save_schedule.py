"""The interval between saves: balances the measured cost of a save against the work that a failure loses."""

import math
import statistics
import time
from collections import deque
from itertools import zip_longest

from headway.recipe import Checkpoint
from headway.runs import History

SAMPLES = 8
"""Number of saves in the mean cost, and of steps in the median step time."""


def optimal_interval(cost: float, between_failures: float) -> float:
    """The time between the ends of two saves that wastes least [s], if a save costs `cost` [s] of training.

    Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22 (2006), equation 37;
    its first term is Young's (1974). Each failure also loses the time of a restore and of a background upload, whatever
    the interval, so neither moves the optimum.
    """
    if cost >= 2 * between_failures:
        return between_failures
    ratio = math.sqrt(cost / (2 * between_failures))
    return math.sqrt(2 * cost * between_failures) * (1 + ratio / 3 + ratio * ratio / 9) - cost


def failures(history: History) -> tuple[int, float]:
    """The number of attempts that ended without saving, and the total time of all attempts [s].

    A preemption that saved lost nothing, so it is no failure.
    """
    lost, total = 0, 0.0
    for attempt, follower in zip_longest(history.attempts, history.attempts[1:]):
        last = max([attempt.claim.time, *(each.time for each in (*attempt.commits, *attempt.decisions))])
        if attempt.end:
            last = attempt.end.time
        elif follower and follower.claim.lost_at:
            last = max(last, follower.claim.lost_at)
        rolled_back = any(decision.restored is not None for decision in attempt.decisions)
        lost += attempt.outcome == "failed" or (attempt.outcome == "open" and follower is not None and not rolled_back)
        total += last - attempt.claim.time
    return lost, total


class SaveSchedule:
    """Decides on rank 0 when to save. The other ranks learn the decision with the batch's losses."""

    def __init__(self, plan: Checkpoint, history: History) -> None:
        self.plan = plan
        self._failures, self._past_seconds = failures(history)
        self._start = self._last_save = time.monotonic()
        self._costs: deque[float] = deque(maxlen=SAMPLES)
        self._step_times: deque[float] = deque(maxlen=SAMPLES)
        """Times of steps beside which no save was running [s]."""
        self._cost = 0.0
        """Cost of the save in progress so far [s]."""

    @property
    def interval(self) -> float:
        """Time from the last save to the next [s]."""
        seconds = self.plan.expect_failure_seconds + self._past_seconds + time.monotonic() - self._start
        cost = statistics.fmean(self._costs) if self._costs else 0.0
        return min(
            max(optimal_interval(cost, seconds / (1 + self._failures)), self.plan.least_seconds),
            self.plan.most_seconds,
        )

    def is_due(self, *, saving: bool) -> bool:
        """Whether to save now; never during a save, or if the recipe sets the interval in tokens."""
        return not self.plan.every_tokens and not saving and time.monotonic() - self._last_save >= self.interval

    def on_stall(self, seconds: float) -> None:
        """Record that training stood still for the save in progress."""
        self._cost += seconds

    def on_step(self, seconds: float, *, saving: bool) -> None:
        """Record the time of a step. During a save, the excess over the usual time counts as its cost."""
        if not saving:
            self._step_times.append(seconds)
        elif self._step_times:
            self._cost += max(0.0, seconds - statistics.median(self._step_times))

    def on_save(self) -> None:
        """Record that a save starts, and with it that the cost of the previous one is final."""
        if self._cost:
            self._costs.append(self._cost)
        self._cost, self._last_save = 0.0, time.monotonic()
