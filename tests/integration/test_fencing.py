"""Two processes on one run: one of them writes, and the other one leaves by itself."""

import json
import os
import signal
import subprocess
import sys

import pytest

from headway import recipe as recipes
from headway.checkpoint.reader import StoredCheckpoint
from headway.runs import Claimed, Committed, Damaged, Pruned
from headway.runs.garbage import find_garbage
from tests.integration.rival import content
from tests.integration.training import DEADLINE, Place, Training

ROUNDS = int(os.environ.get("HEADWAY_FENCE_ROUNDS", "100"))


@pytest.mark.slow
def test_a_hundred_take_overs_mix_no_commits(s3_place: Place) -> None:
    """Two processes take one run from each other over S3: every commit is whole and its own attempt's."""
    run = s3_place.run("run")
    run.freeze(recipes.load(s3_place.recipe))
    rivals = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.rival", s3_place.url, "run", str(ROUNDS // 2), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [rival.communicate(timeout=5 * DEADLINE)[0] for rival in rivals]
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert [rival.returncode for rival in rivals] == [0, 0]
    reports = [json.loads(line) for output in outputs for line in output.splitlines()]

    entries = s3_place.run("run").journal.read()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    holder = 0
    made: dict[int, list[int]] = {}
    for entry in entries:
        assert isinstance(entry, Claimed | Committed | Pruned)
        if isinstance(entry, Claimed):
            holder = entry.seq
        assert entry.attempt == holder, "an attempt wrote after a newer claim"
        if isinstance(entry, Committed):
            made.setdefault(entry.attempt, []).append(entry.tokens)
    assert len(reports) == 2 * (ROUNDS // 2)
    for report in reports:
        assert report["made"] == made.get(report["attempt"], []), "its report is not what the journal says"

    history = s3_place.history("run")
    assert len(history.commits) >= 3
    for commit in history.commits:
        assert StoredCheckpoint(s3_place.objects, commit).read_tensor("model.w").tobytes() == content(
            commit.tokens, commit.attempt
        )
    assert s3_place.findings("run") == []
    left = {item.key.split("/")[3] for item in find_garbage(s3_place.run("run"))}
    assert {int(name.rpartition("-")[2]) for name in left} <= {report["attempt"] for report in reports}


@pytest.mark.slow
def test_a_training_that_wakes_up_fenced_leaves_within_one_save(s3_place: Place, unkilled: str) -> None:
    """A training is paused, another takes its run over S3, the first wakes: it leaves by itself, and the bits stay."""
    trainings: list[Training] = []

    def begin(ranks: int) -> Training:
        """Take the run, make a step, and fall asleep."""
        training = s3_place.start("run", ranks=ranks, options=["--take-over"])
        trainings.append(training)
        assert training.await_event("step.done"), training.messages
        training.send(signal.SIGSTOP, training.family())
        return training

    try:
        holder = begin(2)
        for ranks in (1, 2, 1):
            zombie, holder = holder, begin(ranks)
            saved = sum(event["event"] == "checkpoint.staged" for event in zombie.events)
            zombie.send(signal.SIGCONT, zombie.family())
            assert zombie.wait() == 1
            assert "is fenced: attempt" in zombie.outcome()["reason"]
            assert sum(event["event"] == "checkpoint.staged" for event in zombie.events) <= saved + 1
        holder.send(signal.SIGCONT, holder.family())
        assert holder.wait() == 0
    finally:
        for training in trainings:
            training.clean_up()
    claim = 0
    for entry in s3_place.run("run").journal.read():
        assert not isinstance(entry, Damaged)
        claim = entry.seq if isinstance(entry, Claimed) else claim
        assert entry.attempt == claim
    assert s3_place.fingerprint("run") == unkilled
    assert s3_place.findings("run") == []
