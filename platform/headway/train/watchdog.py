"""Finding the rank that keeps all others waiting: frozen, cut off, or stuck in what it does.

Pure logic over what the machines of a launch say of their ranks, so that it can be tried without any.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headway.train.heartbeat import RankHeartbeat
from headway.train.outcome import Failure

WARM_UP = ("startup",)
"""Phases in which a rank may be silent for longer: libraries are loaded and devices opened, in long calls."""
WARM_UP_FACTOR = 3
TRAINING = ("step", "data")
"""Phases in which something is done at least every few seconds."""
SLOWEST_FACTOR = 10
"""No progress for so many times the longest recent pause is too long."""
SUSPENDED_SECONDS = 5.0
"""A watchdog that has not looked for so long was suspended itself [s]: silence counts from its waking on."""
FORGET = 0.9
"""What is left of the longest pause with each new one: that of the first step, which compiles, says little."""


@dataclass(frozen=True)
class NodeReport:
    """What the launcher of one machine says about once a second."""

    host: str
    turn: int
    """Grows from word to word."""
    heartbeats: tuple[RankHeartbeat, ...] = ()
    failure: Failure | None = None


class Watchdog:
    """Watches over all ranks of a launch, from the first machine."""

    def __init__(self, hang_seconds: float) -> None:
        self.hang_seconds = hang_seconds
        self._heard: dict[int, tuple[int, float]] = {}
        """Of each machine, its last turn and when it came."""
        self._done = 0
        self._progress: float | None = None
        """When some rank last got something done, once training goes on."""
        self._slowest = 0.0
        self._looked = self._awake = float("-inf")
        """When it looked last, and since when it has done so without a break: it may have been suspended with all."""

    def look(self, words: Mapping[int, NodeReport], now: float) -> Failure | None:
        """What is wrong by the newest word of each machine, if anything is; `now` is monotonic [s].

        The first failure that a machine tells, else a rank that gives no sign of life, else one that gets nothing done
        while all live.
        """
        if told := first_failure(word.failure for word in words.values()):
            return told
        if now - self._looked > SUSPENDED_SECONDS and self._heard:
            self._awake, self._progress = now, None
        self._looked = now
        signs = list(self._aged(words, now))
        return self._silent(signs) or self._stuck(signs, now)

    def _aged(self, words: Mapping[int, NodeReport], now: float) -> Iterable[tuple[str, RankHeartbeat, float]]:
        """Host, sign and silence of each rank; the silence of its machine counts, too [s]."""
        for node, word in words.items():
            turn, came = self._heard.get(node, (-1, now))
            if turn != word.turn:
                self._heard[node] = (word.turn, came := now)
            for sign in word.heartbeats:
                yield word.host, sign, min(sign.silent + (now - came), now - self._awake)

    def _silent(self, signs: Iterable[tuple[str, RankHeartbeat, float]]) -> Failure | None:
        for host, sign, silent in sorted(signs, key=lambda each: -each[2]):
            if silent > self.hang_seconds * (WARM_UP_FACTOR if sign.phase in WARM_UP else 1):
                return Failure(
                    "",
                    f"rank {sign.rank} on {host} is stuck in phase {sign.phase}: no sign of life for {silent:.0f} s",
                    host,
                )
        return None

    def _stuck(self, signs: list[tuple[str, RankHeartbeat, float]], now: float) -> Failure | None:
        """All live, but nobody gets anything done: the one that is behind keeps the others waiting.

        The first step is not watched: it compiles, and takes what time it wants.
        """
        training = [(host, sign) for host, sign, _ in signs if sign.phase in TRAINING]
        done = sum(sign.done for _, sign in training)
        if len(training) < len(signs) or not training:  # somebody starts, saves or evaluates
            self._progress = None
            return None
        if self._progress is None or done != self._done:
            if self._progress is not None:
                self._slowest = max(self._slowest * FORGET, now - self._progress)
            self._done, self._progress = done, now
            return None
        limit = max(self.hang_seconds, SLOWEST_FACTOR * self._slowest)
        if not self._slowest or now - self._progress <= limit:
            return None
        host, behind = min(training, key=lambda each: (each[1].phase != "data", each[1].done))
        return Failure(
            "",
            f"rank {behind.rank} on {host} is stuck in phase {behind.phase}: "
            f"nothing was done for {now - self._progress:.0f} s, and it is behind the others",
            host,
        )


LOST_PEERS = ("RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError")
"""Errors with which torch says, mostly, that another rank is gone."""


def first_failure(failures: Iterable[Failure | None]) -> Failure | None:
    """The failure that caused the others: the first one, but for those that only say that a peer is gone."""
    known = [failure for failure in failures if failure]
    return min(known, key=lambda failure: (failure.kind in LOST_PEERS, failure.time), default=None)
