"""The watchdog names the rank that blocks the others, and tolerates what may take long."""

from headway.train.host.outcome import Failure
from headway.train.host.rank_heartbeat import RankHeartbeat
from headway.train.host.watchdog import NodeReport, Watchdog, first_failure

HANG = 20.0


def heartbeat(rank: int, *, phase: str = "step", done: int = 0, silent: float = 0.1) -> RankHeartbeat:
    """A heartbeat."""
    return RankHeartbeat(rank, phase, done, silent)


class Launch:
    """Two nodes with one rank each, whose launchers report once a second."""

    def __init__(self) -> None:
        self.watchdog, self.now, self.sequence, self.done = Watchdog(HANG), 1000.0, 0, 0

    def seconds(self, count: int, *, phase: str = "step", works: bool = True, mute: bool = False) -> Failure | None:
        """Let `count` seconds pass; `works`: ranks make progress; `mute`: the second node does not report."""
        for _ in range(count):
            self.now, self.sequence, self.done = self.now + 1, self.sequence + 1, self.done + works
            second = self.sequence if not mute else 0
            reports = {
                0: NodeReport("one", self.sequence, (heartbeat(0, phase=phase, done=self.done),)),
                1: NodeReport("two", second, (heartbeat(1, phase=phase, done=self.done - (not works)),)),
            }
            if failure := self.watchdog.check(reports, self.now):
                return failure
        return None


def test_a_frozen_rank_is_named_with_its_phase() -> None:
    """Its heartbeat is older than the limit: it is named with host and phase."""
    reports = {0: NodeReport("one", 1, (heartbeat(0), heartbeat(1, phase="data", silent=HANG + 1)))}
    failure = Watchdog(HANG).check(reports, 0.0)
    assert failure
    assert (failure.host, "rank 1 on one is stuck in phase data" in failure.message) == ("one", True)


def test_a_short_silence_is_no_alarm() -> None:
    """A heartbeat younger than the limit is fine."""
    assert Watchdog(HANG).check({0: NodeReport("one", 1, (heartbeat(0, silent=HANG - 1),))}, 0.0) is None


def test_a_node_that_is_cut_off_is_named() -> None:
    """Its last report was fine, but the time since then counts."""
    launch = Launch()
    assert launch.seconds(5) is None
    assert launch.seconds(int(HANG) - 2, mute=True) is None
    failure = launch.seconds(5, mute=True)
    assert failure
    assert failure.host == "two"


def test_start_up_may_be_silent_for_longer() -> None:
    """Loading libraries takes long calls."""
    watchdog = Watchdog(HANG)
    assert watchdog.check({0: NodeReport("one", 1, (heartbeat(0, phase="startup", silent=2 * HANG),))}, 0.0) is None
    assert watchdog.check({0: NodeReport("one", 2, (heartbeat(0, phase="startup", silent=4 * HANG),))}, 1.0)


def test_a_first_step_that_compiles_is_no_alarm() -> None:
    """All ranks have heartbeats, but make no progress for minutes at the start."""
    launch = Launch()
    assert launch.seconds(600, works=False) is None


def test_a_rank_without_progress_is_named() -> None:
    """In a deadlock, the rank that is behind blocks the others."""
    launch = Launch()
    assert launch.seconds(10) is None
    assert launch.seconds(int(HANG) - 2, works=False) is None
    failure = launch.seconds(10, works=False)
    assert failure
    assert (failure.host, "rank 1" in failure.message) == ("two", True)


def test_saves_and_evaluations_may_take_long() -> None:
    """The watchdog does not expect progress in those phases."""
    launch = Launch()
    assert launch.seconds(10) is None
    assert launch.seconds(300, phase="evaluation", works=False) is None
    assert launch.seconds(10) is None


def test_slow_steps_may_take_ten_times_their_usual_length() -> None:
    """The limit follows from the pauses so far."""
    launch = Launch()
    for _ in range(3):
        assert launch.seconds(1) is None
        assert launch.seconds(14, works=False) is None
    assert launch.seconds(1) is None
    assert launch.seconds(100, works=False) is None
    assert launch.seconds(100, works=False)


def test_the_pause_of_a_compiling_step_is_forgotten() -> None:
    """A first step of five minutes does not raise the limit of later steps to fifty."""
    launch = Launch()
    launch.seconds(1)
    launch.seconds(300, works=False)
    assert launch.seconds(60) is None
    assert launch.seconds(int(HANG) + 10, works=False)


def test_a_launch_that_was_suspended_as_a_whole_is_not_blamed() -> None:
    """After `scontrol suspend` all heartbeats are old, but new ones come."""
    launch = Launch()
    assert launch.seconds(5) is None
    launch.now += 600
    reports = {0: NodeReport("one", 100, (heartbeat(0, silent=600.0), heartbeat(1, silent=600.0)))}
    assert launch.watchdog.check(reports, launch.now) is None
    for sequence in range(1, int(HANG)):
        reports = {
            0: NodeReport("one", 100 + sequence, (heartbeat(0, done=sequence), heartbeat(1, silent=600.0 + sequence)))
        }
        assert launch.watchdog.check(reports, launch.now + sequence) is None
    reports = {0: NodeReport("one", 200, (heartbeat(0), heartbeat(1, silent=600.0 + HANG)))}
    assert launch.watchdog.check(reports, launch.now + HANG + 2), "the one that never came back is named"


def test_the_first_failure_counts() -> None:
    """Except for failures that only report a lost peer."""
    cause = Failure("", "rank 3 was killed", "two", 12.0)
    lost = Failure("RuntimeError", "connection closed by peer", None, 11.0)
    assert first_failure([lost, None, cause]) == cause
    assert first_failure([lost, None]) == lost
    assert first_failure([None]) is None
    assert Watchdog(HANG).check({0: NodeReport("one", 1), 1: NodeReport("two", 1, failure=cause)}, 0.0) == cause
