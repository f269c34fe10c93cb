"""Names are resolved to runs and jobs, which are cancelled or requeued."""

import os
from pathlib import Path

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import Story, trained
from tests.unit.launch.answers import PLAIN

from headway.errors import UsageError
from headway.launch.resolve import cancel_jobs, requeue_jobs, resolve
from headway.runs import submissions
from headway.runs.submissions import Member, Submission, SubmittedJob


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """A store with the array `a` of four runs, submitted as job 5, of which the first is done."""
    store = MemoryStore()
    submission = Submission(
        name="a", cluster="here", user="u", host="h", folder=str(tmp_path), time=0, recipe="", array=True, nodes_min=1,
        nodes_max=1, members=[Member(run=f"a.{index}", overrides=[]) for index in range(4)], ranks=1, trace="",
        store="", sbatch="#!/bin/sh\n", logs=str(tmp_path / "logs"), sent=[SubmittedJob(job="5", time=0)],
    )  # fmt: skip
    submissions.save(store, submission)
    trained(Story(store, "a.0"))
    return store


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The commands that SLURM receives. Element 1 of job 5 waits, 2 runs, and the others are forgotten."""
    received = tmp_path / "commands"
    jobs = [
        PLAIN.replace("JobId=5934", f"JobId={raw} ArrayJobId=5 ArrayTaskId={index}").replace("RUNNING", state)
        for raw, index, state in ((6, 1, "PENDING"), (7, 2, "RUNNING"))
    ]
    (tmp_path / "jobs").write_text("\n".join(jobs))
    scripts = {
        "scontrol": f'case "$*" in "show config") echo "ClusterName = here";; *"job 5") cat {tmp_path}/jobs;; '
        f'requeue*) echo "$*" >> {received};; *) echo "Invalid job id specified" >&2; exit 1;; esac',
        "scancel": f'echo "cancel $*" >> {received}',
        "sbatch": f'echo "$*" >> {received}; echo "Submitted batch job 8"',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return received


def test_each_run_of_an_array_is_requeued_by_its_state(store: MemoryStore, commands: Path) -> None:
    """Done runs are left alone, running jobs are requeued, and runs without a job are submitted again."""
    outcome = requeue_jobs(resolve(store, "a"))
    assert (outcome.done, outcome.waiting, outcome.requeued) == (["a.0"], ["a.1"], ["a.2"])
    assert (outcome.resubmitted, outcome.job) == (["a.3"], "8")
    requeue, sbatch = commands.read_text().splitlines()
    assert requeue == "requeue 5_2"
    assert "--array=3" in sbatch.split()
    assert submissions.get(store, "a").job_of(3) == "8_3"


def test_one_run_of_an_array_is_selected_by_its_name(store: MemoryStore, commands: Path) -> None:
    """The jobs of the other runs are left alone."""
    selection = resolve(store, "a.2")
    assert (selection.runs, selection.array, selection.whole) == (["a.2"], None, None)
    assert cancel_jobs(selection) == ["5_2"]
    assert commands.read_text() == "cancel 5_2\n"
    assert not submissions.get(store, "a").jobs[0].cancelled


def test_a_whole_array_is_cancelled_by_its_id(store: MemoryStore, commands: Path) -> None:
    """One command for all elements; the submission remembers that it was cancelled."""
    assert cancel_jobs(resolve(store, "a")) == ["5_1", "5_2"]
    assert commands.read_text() == "cancel 5\n"
    assert submissions.get(store, "a").jobs[0].cancelled


def test_an_unknown_name_is_answered_with_the_known_ones(store: MemoryStore) -> None:
    """Runs and submissions are listed."""
    with pytest.raises(UsageError, match=r"no run b in memory://; there are: a\.0; submissions: a"):
        resolve(store, "b")
