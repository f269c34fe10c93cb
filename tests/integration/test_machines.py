"""Several machines train one run: here each is a launcher of its own on this one, found through the store alone."""

import signal
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.integration.training import DEADLINE, Place, Training

pytestmark = pytest.mark.slow

Begin = Callable[..., list[Training]]


@pytest.fixture
def begin(place: Place) -> Iterator[Begin]:
    """Begins trainings on several machines, and cleans up after them."""
    begun: list[Training] = []

    def start(*overrides: str, ranks: int = 1, late: Sequence[str] = ()) -> list[Training]:
        machines = place.start_machines("run", [*overrides], [*overrides, *late], ranks=ranks)
        begun.extend(machines)
        return machines

    yield start
    for training in begun:
        training.clean_up()


def test_machines_end_with_the_bits_of_one(place: Place, begin: Begin, unkilled: str) -> None:
    """Two machines with two ranks each train what one rank does; the store keeps no address of them."""
    machines = begin(ranks=2)
    assert [machine.wait() for machine in machines] == [0, 0]
    assert place.fingerprint("run") == unkilled
    assert not list(place.objects.list("runs/run/meetings/"))


def test_a_signal_to_one_machine_stops_all_with_everything_committed(place: Place, begin: Begin, unkilled: str) -> None:
    """SIGTERM reaches the last machine only: all stop at one step, commit it, and another size goes on."""
    machines = begin()
    assert machines[0].await_event("step.done", 5)
    machines[1].send(signal.SIGTERM, machines[1].family()[:1])
    assert [machine.wait() for machine in machines] == [75, 75]
    history = place.history("run")
    assert history.attempts[-1].outcome == "preempted"
    assert history.commits[-1].tokens == history.attempts[-1].end.tokens  # type: ignore[union-attr]
    assert place.train("run", ranks=3).process.returncode == 0
    assert place.fingerprint("run") == unkilled


@pytest.mark.parametrize("victim", ["rank", "machine"])
def test_a_killed_part_of_one_machine_ends_the_attempt_everywhere(
    place: Place, begin: Begin, unkilled: str, victim: str
) -> None:
    """SIGKILL of a rank, or of everything, on the last machine: the first says what happened, and all leave."""
    machines = begin()
    assert machines[0].await_event("step.done", 5)
    machines[1].send(signal.SIGKILL, machines[1].ranks() if victim == "rank" else machines[1].family())
    assert machines[0].wait() == 1
    machines[1].wait()
    ended = place.history("run").attempts[-1].end
    assert ended
    assert ended.outcome == "failed"
    assert ("rank 1 was killed by SIGKILL" if victim == "rank" else "rank 1") in ended.reason
    assert ended.host
    assert place.train("run").process.returncode == 0
    assert place.fingerprint("run") == unkilled


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_frozen_rank_is_named_with_its_phase(place: Place, begin: Begin, unkilled: str, stopped: int) -> None:
    """SIGSTOP of one rank: it is named, the attempt fails, nothing is left of it, and the next one goes on."""
    machines = begin("machine.hang_seconds=3.0")
    assert machines[0].await_event("step.done", 5)
    machines[stopped].send(signal.SIGSTOP, machines[stopped].ranks())
    assert machines[0].await_end(DEADLINE)
    assert [machine.wait() for machine in machines] == [1, 1]
    ended = place.history("run").attempts[-1].end
    assert ended
    assert f"rank {stopped} on {ended.host} is stuck in phase" in ended.reason
    assert place.train("run").process.returncode == 0
    assert place.fingerprint("run") == unkilled


def test_a_machine_that_may_not_train_tells_the_others(place: Place, begin: Begin) -> None:
    """Its data is missing: all leave at once with that message, and the run was never claimed."""
    first, second = begin(late=["data.path=nowhere"])
    assert [first.wait(), second.wait()] == [2, 2]
    assert "nowhere" in first.outcome()["reason"]
    assert not place.history("run").attempts
