"""Bad batches: what is done about them is recorded, and a killed run decides like an unkilled one."""

import signal

import pytest

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
