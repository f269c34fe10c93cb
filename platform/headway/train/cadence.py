"""How often it pays off to save: what a save costs against what a kill loses, by what was measured in this run."""

import math
import statistics
import time
from collections import deque
from itertools import zip_longest

from headway.recipe import Checkpoint
from headway.runs import History

REMEMBERED = 8
"""Saves that the cost is averaged over, and steps that the usual step is the median of."""


def optimal_interval(cost: float, between_failures: float) -> float:
    """Time between the ends of two saves that wastes least [s], for a save that costs `cost` [s] of training.

    Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22 (2006), equation 37;
    its first term is Young's (1974). The time that a restore takes, and that a save takes to become true in the
    background, is lost with every failure whatever the interval, so neither moves the optimum.
    """
    if cost >= 2 * between_failures:
        return between_failures
    ratio = math.sqrt(cost / (2 * between_failures))
    return math.sqrt(2 * cost * between_failures) * (1 + ratio / 3 + ratio * ratio / 9) - cost


def failures(history: History) -> tuple[int, float]:
    """How many attempts ended without saving, and how long all lived [s]. Preemptions that saved lost nothing."""
    lost, lived = 0, 0.0
    for attempt, follower in zip_longest(history.attempts, history.attempts[1:]):
        last = max([attempt.claim.time, *(each.time for each in (*attempt.commits, *attempt.decisions))])
        if attempt.ended:
            last = attempt.ended.time
        elif follower and follower.claim.lost_at:
            last = max(last, follower.claim.lost_at)
        rolled_back = any(decision.restored is not None for decision in attempt.decisions)
        lost += attempt.outcome == "failed" or (attempt.outcome == "open" and follower is not None and not rolled_back)
        lived += last - attempt.claim.time
    return lost, lived


class Cadence:
    """When rank 0 wishes to save. What it measures is its own; the others learn the wish with the batch's losses."""

    def __init__(self, plan: Checkpoint, history: History) -> None:
        self.plan = plan
        self._lost, self._lived = failures(history)
        self._began = self._saved = time.monotonic()
        self._costs: deque[float] = deque(maxlen=REMEMBERED)
        self._usual: deque[float] = deque(maxlen=REMEMBERED)
        self._cost = 0.0

    @property
    def interval(self) -> float:
        """How long until the next save [s]."""
        lived = self.plan.expect_failure_seconds + self._lived + time.monotonic() - self._began
        cost = statistics.fmean(self._costs) if self._costs else 0.0
        return min(
            max(optimal_interval(cost, lived / (1 + self._lost)), self.plan.least_seconds), self.plan.most_seconds
        )

    def wish(self, *, saving: bool) -> bool:
        """Whether it is time, unless the recipe says when; never while the save before is still on its way."""
        return not self.plan.every_tokens and not saving and time.monotonic() - self._saved >= self.interval

    def stalled(self, seconds: float) -> None:
        """Note that training stood still for the save that is on its way."""
        self._cost += seconds

    def stepped(self, seconds: float, *, saving: bool) -> None:
        """Note how long a step took: beside a save it takes longer than usual."""
        if not saving:
            self._usual.append(seconds)
        elif self._usual:
            self._cost += max(0.0, seconds - statistics.median(self._usual))

    def begin(self) -> None:
        """Note that a save begins: what the one before it cost is known."""
        if self._cost:
            self._costs.append(self._cost)
        self._cost, self._saved = 0.0, time.monotonic()
