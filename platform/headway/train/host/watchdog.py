"""Detects the rank that blocks all others: frozen, cut off from the network, or stuck.

Pure logic over the reports of the nodes, so that tests need no processes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headway.train.host.outcome import Failure
from headway.train.host.rank_heartbeat import RankHeartbeat

WARM_UP = ("startup",)
"""Phases in which heartbeats may pause for longer, because loading libraries and opening devices are long calls."""
WARM_UP_FACTOR = 3
TRAINING = ("step", "data")
"""Phases in which progress is expected every few seconds."""
PAUSE_FACTOR = 10
"""Ranks count as stuck after this many times the longest recent pause without progress."""
SUSPENDED_SECONDS = 5.0
"""A watchdog that has not run for this long was suspended itself [s]; heartbeat ages then count from its resumption."""
PAUSE_DECAY = 0.9
"""Factor on the longest pause with each new one, so that the compilation in the first step is soon forgotten."""


@dataclass(frozen=True)
class NodeReport:
    """Status that the launcher of each node publishes about once a second."""

    host: str
    sequence: int
    """Number of the report; grows."""
    heartbeats: tuple[RankHeartbeat, ...] = ()
    failure: Failure | None = None


class Watchdog:
    """Watches all ranks of a launch; runs on the head node."""

    def __init__(self, hang_seconds: float) -> None:
        self.hang_seconds = hang_seconds
        self._arrivals: dict[int, tuple[int, float]] = {}
        """Sequence number and arrival time of each node's last report."""
        self._progress = 0
        """Sum of the progress counters at the last check."""
        self._progress_time: float | None = None
        """When the sum last grew; None while some rank is outside the training phases."""
        self._longest_pause = 0.0
        self._last_check = self._awake_since = float("-inf")
        """Time of the last check, and start of the checks that no suspension has interrupted."""

    def check(self, reports: Mapping[int, NodeReport], now: float) -> Failure | None:
        """What is wrong according to the newest report of each node, if anything; `now` is monotonic [s].

        In this order: the first failure that a node reports, a rank without a heartbeat, a rank without progress.
        """
        if failure := first_failure(report.failure for report in reports.values()):
            return failure
        if now - self._last_check > SUSPENDED_SECONDS and self._arrivals:
            self._awake_since, self._progress_time = now, None
        self._last_check = now
        heartbeats = list(self._ages(reports, now))
        return self._find_silent(heartbeats) or self._find_stuck(heartbeats, now)

    def _ages(self, reports: Mapping[int, NodeReport], now: float) -> Iterable[tuple[str, RankHeartbeat, float]]:
        """Yields host, heartbeat and its age [s] for each rank; the age includes the time since the node's report."""
        for node, report in reports.items():
            sequence, arrival = self._arrivals.get(node, (-1, now))
            if sequence != report.sequence:
                self._arrivals[node] = (report.sequence, arrival := now)
            for heartbeat in report.heartbeats:
                yield report.host, heartbeat, min(heartbeat.age + (now - arrival), now - self._awake_since)

    def _find_silent(self, heartbeats: Iterable[tuple[str, RankHeartbeat, float]]) -> Failure | None:
        for host, heartbeat, age in sorted(heartbeats, key=lambda each: -each[2]):
            if age > self.hang_seconds * (WARM_UP_FACTOR if heartbeat.phase in WARM_UP else 1):
                return Failure(
                    "",
                    f"rank {heartbeat.rank} on {host} is stuck in phase {heartbeat.phase}: "
                    f"no heartbeat for {age:.0f} s",
                    host,
                )
        return None

    def _find_stuck(self, heartbeats: list[tuple[str, RankHeartbeat, float]], now: float) -> Failure | None:
        """The rank that is behind, if every rank has a heartbeat and none makes progress.

        The first step is exempt: it compiles, and may take any time.
        """
        training = [(host, heartbeat) for host, heartbeat, _ in heartbeats if heartbeat.phase in TRAINING]
        progress = sum(heartbeat.progress for _, heartbeat in training)
        if len(training) < len(heartbeats) or not training:  # some rank starts, saves or evaluates
            self._progress_time = None
            return None
        if self._progress_time is None or progress != self._progress:
            if self._progress_time is not None:
                self._longest_pause = max(self._longest_pause * PAUSE_DECAY, now - self._progress_time)
            self._progress, self._progress_time = progress, now
            return None
        limit = max(self.hang_seconds, PAUSE_FACTOR * self._longest_pause)
        if not self._longest_pause or now - self._progress_time <= limit:
            return None
        host, behind = min(training, key=lambda each: (each[1].phase != "data", each[1].progress))
        return Failure(
            "",
            f"rank {behind.rank} on {host} is stuck in phase {behind.phase}: "
            f"no progress for {now - self._progress_time:.0f} s, and it is behind the other ranks",
            host,
        )


LOST_PEERS = ("RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError")
"""Error classes that mostly mean, in torch, that another rank is gone."""


def first_failure(failures: Iterable[Failure | None]) -> Failure | None:
    """The root cause: the earliest failure, where those that only report a lost peer come last."""
    causes = [failure for failure in failures if failure]
    return min(causes, key=lambda failure: (failure.kind in LOST_PEERS, failure.time), default=None)
