"""The watchdog names the rank that keeps the others waiting, and is not alarmed by what takes its time."""

from headway.train.heartbeat import RankHeartbeat
from headway.train.outcome import Failure
from headway.train.watchdog import NodeReport, Watchdog, first_failure

HANG = 20.0


def sign(rank: int, *, phase: str = "step", done: int = 0, silent: float = 0.1) -> RankHeartbeat:
    """A sign of life."""
    return RankHeartbeat(rank, phase, done, silent)


class Launch:
    """Two machines with a rank each, whose launchers speak once a second."""

    def __init__(self) -> None:
        self.watchdog, self.now, self.turn, self.done = Watchdog(HANG), 1000.0, 0, 0

    def seconds(self, count: int, *, phase: str = "step", works: bool = True, mute: bool = False) -> Failure | None:
        """So many seconds pass; `works`: micro-batches are done; `mute`: the second machine says nothing."""
        for _ in range(count):
            self.now, self.turn, self.done = self.now + 1, self.turn + 1, self.done + works
            second = self.turn if not mute else 0
            words = {
                0: NodeReport("one", self.turn, (sign(0, phase=phase, done=self.done),)),
                1: NodeReport("two", second, (sign(1, phase=phase, done=self.done - (not works)),)),
            }
            if found := self.watchdog.look(words, self.now):
                return found
        return None


def test_a_frozen_rank_is_named_with_its_phase() -> None:
    """It gives no sign of life for longer than it may: named, with host and phase."""
    words = {0: NodeReport("one", 1, (sign(0), sign(1, phase="data", silent=HANG + 1)))}
    found = Watchdog(HANG).look(words, 0.0)
    assert found
    assert (found.host, "rank 1 on one is stuck in phase data" in found.message) == ("one", True)


def test_a_rank_that_was_silent_for_a_while_is_left_alone() -> None:
    """Less than the limit is no alarm."""
    assert Watchdog(HANG).look({0: NodeReport("one", 1, (sign(0, silent=HANG - 1),))}, 0.0) is None


def test_a_machine_that_is_cut_off_is_named_by_its_ranks() -> None:
    """Its last word said that all was well, but it is its last: the silence of the machine counts."""
    launch = Launch()
    assert launch.seconds(5) is None
    assert launch.seconds(int(HANG) - 2, mute=True) is None
    found = launch.seconds(5, mute=True)
    assert found
    assert found.host == "two"


def test_start_up_may_be_silent_for_longer() -> None:
    """Libraries are loaded in long calls."""
    watchdog = Watchdog(HANG)
    assert watchdog.look({0: NodeReport("one", 1, (sign(0, phase="startup", silent=2 * HANG),))}, 0.0) is None
    assert watchdog.look({0: NodeReport("one", 2, (sign(0, phase="startup", silent=4 * HANG),))}, 1.0)


def test_a_first_step_that_compiles_is_no_alarm() -> None:
    """All ranks live and nothing gets done for minutes, before anything was ever done."""
    launch = Launch()
    assert launch.seconds(600, works=False) is None


def test_a_rank_that_lives_but_does_nothing_is_named() -> None:
    """A deadlock: the rank that is behind keeps the others waiting."""
    launch = Launch()
    assert launch.seconds(10) is None
    assert launch.seconds(int(HANG) - 2, works=False) is None
    found = launch.seconds(10, works=False)
    assert found
    assert (found.host, "rank 1" in found.message) == ("two", True)


def test_saves_and_evaluations_take_their_time() -> None:
    """Nothing is counted in those phases, however long they are."""
    launch = Launch()
    assert launch.seconds(10) is None
    assert launch.seconds(300, phase="evaluation", works=False) is None
    assert launch.seconds(10) is None


def test_slow_steps_are_given_ten_times_their_length() -> None:
    """What counts as too long follows from the pauses that were seen."""
    launch = Launch()
    for _ in range(3):
        assert launch.seconds(1) is None
        assert launch.seconds(14, works=False) is None
    assert launch.seconds(1) is None
    assert launch.seconds(100, works=False) is None
    assert launch.seconds(100, works=False)


def test_the_pause_of_a_compiling_step_is_forgotten() -> None:
    """A first step of five minutes does not make the watchdog wait fifty for the hundredth."""
    launch = Launch()
    launch.seconds(1)
    launch.seconds(300, works=False)
    assert launch.seconds(60) is None
    assert launch.seconds(int(HANG) + 10, works=False)


def test_a_launch_that_was_suspended_as_a_whole_is_not_blamed() -> None:
    """SIGSTOP of everything, as `scontrol suspend`: on waking all beats are old, but they come again."""
    launch = Launch()
    assert launch.seconds(5) is None
    launch.now += 600
    words = {0: NodeReport("one", 100, (sign(0, silent=600.0), sign(1, silent=600.0)))}
    assert launch.watchdog.look(words, launch.now) is None
    for turn in range(1, int(HANG)):
        words = {0: NodeReport("one", 100 + turn, (sign(0, done=turn), sign(1, silent=600.0 + turn)))}
        assert launch.watchdog.look(words, launch.now + turn) is None
    words = {0: NodeReport("one", 200, (sign(0), sign(1, silent=600.0 + HANG)))}
    assert launch.watchdog.look(words, launch.now + HANG + 2), "the one that never came back is named"


def test_the_failure_that_came_first_counts() -> None:
    """But not one that only says that a peer is gone."""
    cause = Failure("", "rank 3 was killed", "two", 12.0)
    lost = Failure("RuntimeError", "connection closed by peer", None, 11.0)
    assert first_failure([lost, None, cause]) == cause
    assert first_failure([lost, None]) == lost
    assert first_failure([None]) is None
    assert Watchdog(HANG).look({0: NodeReport("one", 1), 1: NodeReport("two", 1, failure=cause)}, 0.0) == cause
