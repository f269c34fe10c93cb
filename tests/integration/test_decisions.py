"""Bad batches: what is done about them is recorded, and a killed run decides like an unkilled one."""

import getpass
import signal
import socket

import numpy as np
import pytest

from headway.checkpoint.reader import StoredCheckpoint
from tests.integration.training import Place

TOUCHY = ("train.stability.spike_sigmas=0.3", "train.stability.spike_window=4", "train.stability.limit=1000")
"""Makes ordinary noise of the loss count as spikes, so that no bad batch has to be made up."""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["skip", "rollback"])
def test_decisions_are_the_same_however_often_a_run_is_killed(place: Place, action: str) -> None:
    """Spikes are skipped or rolled back; stopped, killed and resized, a run takes the same decisions and ends equal."""
    policy = (*TOUCHY, f"train.stability.on_spike={action}", "train.stability.rollback_batches=2")
    assert place.train("whole", *policy).process.returncode == 0
    for steps, number, ranks in ((9, signal.SIGTERM, 2), (11, signal.SIGKILL, 1), (6, signal.SIGTERM, 3)):
        training = place.start("parts", *policy, ranks=ranks)
        training.await_event("step.done", steps)
        training.send(number, training.family())
        training.wait()
    assert place.train("parts", *policy).process.returncode == 0
    decisions = [
        [(each.action, each.skip_from, each.skip_to) for each in place.history(name).decisions]
        for name in ("whole", "parts")
    ]
    assert decisions[0] == decisions[1] != []
    assert {each.action for each in place.history("whole").decisions} == {action}
    assert place.fingerprint("parts") == place.fingerprint("whole")


@pytest.mark.slow
def test_a_loss_that_stays_infinite_stops_the_run_with_the_reason(place: Place) -> None:
    """A learning rate that destroys the model: batches are skipped up to the limit, then the run fails and says why."""
    training = place.train("run", "train.optimizer.learning_rate=1e30", "train.stability.limit=3", ranks=2)
    assert training.process.returncode == 1
    history = place.history("run")
    assert [decision.action for decision in history.decisions] == ["skip"] * 3
    ended = history.attempts[-1].end
    assert ended
    assert ended.outcome == "failed"
    assert "not finite; after 3 decisions the run was stopped" in ended.reason


DIVERGING = (
    "train.optimizer.learning_rate=1e18", "train.optimizer.clip_norm=1e30", "train.schedule.warmup_tokens=0",
    "checkpoint.every_tokens=512",
)  # fmt: skip
"""The first step takes the weights so far that no loss after it is finite."""


@pytest.mark.slow
def test_a_run_that_diverges_commits_no_state_from_after_its_last_finite_batch(place: Place) -> None:
    """Stopped by a signal or by its limit, on one rank or two: its only checkpoint is that of its one finite batch."""
    policy = (*DIVERGING, "train.stability.limit=40", "train.tokens=30720")
    training = place.start("run", *policy, ranks=2)
    training.await_event("batch.skipped", 5)
    training.send(signal.SIGTERM, training.family())
    assert training.wait() == 75
    ended = place.history("run").attempts[-1].end
    assert ended
    assert (ended.outcome, ended.tokens) == ("preempted", 512)
    assert place.train("run", *policy).process.returncode == 1
    history = place.history("run")
    assert [commit.tokens for attempt in history.attempts for commit in attempt.commits] == [512]
    assert [decision.skip_from for decision in history.bad_batches] == list(range(512, 512 * 41, 512))
    checkpoint = StoredCheckpoint(place.objects, history.commits[0])
    tensors = [checkpoint.read_tensor(name).view(np.float32) for name in checkpoint.manifest.tensors]
    assert all(np.isfinite(tensor).all() for tensor in tensors)
    end = history.attempts[-1].end
    assert end
    assert "headway train RECIPE --from-tokens N goes back to a checkpoint: 0, 512" in end.reason


@pytest.mark.slow
def test_a_state_that_is_not_finite_is_never_committed(place: Place) -> None:
    """One step takes the weights beyond what fp32 holds: the save is refused once, and the run fails and says so."""
    policy = (*DIVERGING, "train.optimizer.weight_decay=1e30", "train.stability.limit=4")
    training = place.train("run", *policy, ranks=2)
    assert training.process.returncode == 1
    refused = [event for event in training.events if event["event"] == "checkpoint.refused"]
    assert [(event["at"], event["rank"]) for event in refused] == [(512, 0)]
    assert place.history("run").attempts[-1].commits == []
    assert [*place.objects.list("runs/run/checkpoints/")] == []


@pytest.mark.slow
def test_a_run_goes_back_by_a_decision_that_outlives_every_kill(s3_place: Place, unkilled: str) -> None:
    """The next plain command continues from there, never from what came after, and ends with the same bits."""
    place = s3_place
    assert place.train("run", ranks=2).process.returncode == 0
    before = place.history("run")
    refused = place.train("run", options=["--from-tokens", "5000"])
    assert refused.process.returncode == 2
    assert refused.messages[-1].endswith("it can go back to: 0, 16384, 18432, 20480")
    training = place.start("run", ranks=2, options=["--from-tokens", "16384"])
    assert training.await_event("rollback.requested"), training.messages
    training.send(signal.SIGKILL, training.family())
    training.wait()
    decided = place.history("run")
    assert [commit.tokens for commit in decided.commits] == [16384]
    assert decided.rolled_back == before.commits[1:]
    assert decided.decisions[-1].by == f"{getpass.getuser()}@{socket.gethostname()}"
    plain = place.train("run")
    assert plain.process.returncode == 0, plain.messages
    assert [event["at"] for event in plain.events if event["event"] == "checkpoint.restored"] == [16384]
    history = place.history("run")
    assert history.decisions == decided.decisions
    assert place.fingerprint("run") == unkilled
    assert not {commit.manifest for commit in before.commits[1:]} & {commit.manifest for commit in history.commits}
    assert place.findings("run") == []
