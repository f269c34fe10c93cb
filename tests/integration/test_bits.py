"""One fingerprint: for every world size, in any order of resumes, and without a single unpickling."""

import signal
from itertools import permutations
from pathlib import Path

import pytest

from tests.integration.training import Place

pytestmark = [pytest.mark.slow, pytest.mark.spread]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_world_size_gives_the_same_bits(place: Place, unkilled: str, ranks: int) -> None:
    """Unkilled, on two, three and four ranks, parameters resharded or kept: the fingerprint of one rank."""
    assert place.train("run", f"machine.reshard={ranks == 2}", ranks=ranks).process.returncode == 0
    assert place.fingerprint("run") == unkilled


@pytest.mark.parametrize("order", [*permutations((1, 2, 3, 4))][::6])
def test_resumes_on_other_world_sizes_give_the_same_bits(place: Place, unkilled: str, order: tuple[int, ...]) -> None:
    """Stopped after some steps and resumed on another number of ranks, in several orders: one fingerprint."""
    for ranks in order[:-1]:
        training = place.start("run", ranks=ranks)
        assert training.await_event("step.done", 8), training.messages
        training.send(signal.SIGTERM, training.family()[:1])
        assert training.wait() == 75
    assert place.train("run", ranks=order[-1]).process.returncode == 0
    assert [len(attempt.commits) > 0 for attempt in place.history("run").attempts] == [True] * 4
    assert place.fingerprint("run") == unkilled


def test_fast_mode_is_equal_for_an_unchanged_world_size(place: Place) -> None:
    """With determinism: fast, a stopped and resumed run equals an unstopped one on as many ranks."""
    assert place.train("whole", "train.determinism=fast", ranks=2).process.returncode == 0
    training = place.start("halves", "train.determinism=fast", ranks=2)
    assert training.await_event("step.done", 17)
    training.send(signal.SIGTERM, training.family()[:1])
    assert training.wait() == 75
    assert place.train("halves", "train.determinism=fast", ranks=2).process.returncode == 0
    assert place.fingerprint("halves") == place.fingerprint("whole")


def test_a_resume_unpickles_nothing(place: Place, unkilled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop and resume under an audit hook that forbids unpickling in the ranks, saves and restores included."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "forbid"), prepend=":")
    training = place.start("run", ranks=2, cold=True)
    assert training.await_event("step.done", 10), training.messages
    training.send(signal.SIGTERM, training.family()[:1])
    assert training.wait() == 75
    resumed = place.train("run", ranks=3, cold=True)
    assert resumed.process.returncode == 0, resumed.messages
    assert resumed.await_event("checkpoint.restored")
    assert place.fingerprint("run") == unkilled


def test_every_kind_of_arithmetic_keeps_its_bits(place: Place) -> None:
    """bf16, attention inside documents and recomputed activations: stopped and resized equals whole."""
    options = ("train.precision=bf16", "model.attention=document", "train.activation_checkpointing=block")
    assert place.train("whole", *options, ranks=1).process.returncode == 0
    training = place.start("parts", *options, ranks=2)
    assert training.await_event("step.done", 12), training.messages
    training.send(signal.SIGTERM, training.family()[:1])
    assert training.wait() == 75
    assert place.train("parts", *options, ranks=3).process.returncode == 0
    assert place.fingerprint("parts") == place.fingerprint("whole")
