"""The state of each member of an array, from its run and from SLURM."""

import os
from pathlib import Path
from typing import get_args

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import Story, running, trained
from tests.unit.launch.answers import PLAIN, WAITING

from headway.launch.array_members import STATES, member_state, member_table
from headway.launch.cluster import SlurmJob
from headway.launch.scontrol import parse_jobs
from headway.reports.overview import RunOverview
from headway.reports.status import State
from headway.runs.submissions import Member, Submission, SubmittedJob


def seen(word: State) -> RunOverview:
    """The overview of a run in some state."""
    return RunOverview("r", word, 0, 1, None, None, 1, 0, 0, None, None, None, "")


def job(word: str) -> SlurmJob:
    """A job in some state."""
    return parse_jobs(PLAIN.replace("JobState=RUNNING", f"JobState={word}"))[0]


def submission(*runs: str, cluster: str | None = "here", sent: tuple[SubmittedJob, ...] = ()) -> Submission:
    """An array of runs."""
    return Submission(
        name="a", cluster=cluster, user="u", host="h", folder="/", time=0, recipe="", array=True, nodes_min=1,
        nodes_max=1, members=[Member(run=run, overrides=[]) for run in runs], ranks=1, trace="", store="", sbatch="",
        logs="", jobs=list(sent),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "slurm", "word"),
    [
        (None, None, "lost"),
        (None, "PENDING", "pending"),
        (None, "REQUEUE_HOLD", "pending"),
        (None, "RUNNING", "starting"),
        (None, "CONFIGURING", "starting"),
        (None, "COMPLETING", "ending"),
        (None, "CANCELLED", "cancelled"),
        (None, "FAILED", "failed"),
        (None, "TIMEOUT", "failed"),
        ("new", "RUNNING", "starting"),
        ("running", "RUNNING", "running"),
        ("running", "COMPLETING", "running"),
        ("done", "COMPLETED", "done"),
        ("done", "RUNNING", "done"),
        ("preempted", "PENDING", "preempted"),
        ("preempted", "RUNNING", "starting"),
        ("preempted", "COMPLETING", "preempted"),
        ("preempted", "CANCELLED", "cancelled"),
        ("killed", "CANCELLED", "cancelled"),
        ("killed", "NODE_FAIL", "killed"),
        ("failed", "CANCELLED", "failed"),
        ("failed", "RUNNING", "starting"),
        ("failed", None, "failed"),
        ("preempted", None, "preempted"),
    ],
)
def test_one_word_tells_how_a_member_stands(run: State | None, slurm: str | None, word: str) -> None:
    """A run that has started has its own state, unless its job starts again; before that SLURM decides."""
    assert member_state(seen(run) if run else None, job(slurm) if slurm else None, slurm_answered=True) == word
    assert word in STATES


def test_where_slurm_cannot_be_asked_nothing_is_called_lost() -> None:
    """Without SLURM, runs that have not started are submitted, and the others have their own state."""
    assert member_state(None, None, slurm_answered=False) == "submitted"
    for word in get_args(State):
        assert member_state(seen(word), None, slurm_answered=False) == ("submitted" if word == "new" else word)


def test_members_are_read_from_the_store_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table is complete, and says why SLURM's columns are empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    store = MemoryStore()
    trained(Story(store, "a.seed-1"))
    running(Story(store, "a.seed-2"))
    table = member_table(store, submission("a.seed-1", "a.seed-2", "a.seed-3", sent=(SubmittedJob(job="5", time=0),)))
    assert [(row.run, row.index, row.state, row.job) for row in table.rows] == [
        ("a.seed-1", 0, "done", None),
        ("a.seed-2", 1, "running", None),
        ("a.seed-3", 2, "submitted", None),
    ]
    assert table.counts == {"done": 1, "running": 1, "submitted": 1}
    assert table.slurm_problem is not None
    assert "no SLURM" in table.slurm_problem
    assert not table.is_over
    (only,) = member_table(store, submission("a.seed-1", "a.seed-2", sent=(SubmittedJob(job="5", time=0),)), [0]).rows
    assert (only.run, only.state) == ("a.seed-1", "done")


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A scontrol that knows one array of the cluster `here`."""
    lines = WAITING + "\n" + PLAIN.replace("JobId=5934", "JobId=5999 ArrayJobId=5935 ArrayTaskId=0")
    (tmp_path / "jobs").write_text(lines)
    (tmp_path / "scontrol").write_text(
        f'#!/bin/sh\ncase "$*" in "show config") echo "ClusterName = here";; *"job 5935") cat {tmp_path}/jobs;;'
        ' *) echo "Invalid job id specified" >&2; exit 1;; esac\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("slurm")
def test_each_member_is_shown_with_its_newest_job() -> None:
    """One query covers an array; a resubmitted member has its newest job, even one that SLURM has forgotten."""
    store = MemoryStore()
    sent = (SubmittedJob(job="5935", time=1), SubmittedJob(job="6000", time=2, members=[3]))
    rows = member_table(store, submission(*(f"a.{index}" for index in range(5)), sent=sent)).rows
    assert [(row.state, row.job and row.job.id) for row in rows] == [
        ("starting", "5935_0"),
        ("lost", None),
        ("pending", "5935_2"),
        ("lost", None),
        ("pending", "5935_4"),
    ]


@pytest.mark.usefixtures("slurm")
def test_another_clusters_ids_mean_nothing_here() -> None:
    """The jobs of another cluster are not looked up in this one."""
    table = member_table(MemoryStore(), submission("a.0", cluster="there", sent=(SubmittedJob(job="5935", time=1),)))
    assert table.rows[0].job is None
    assert "submitted to the cluster there, and this is here" in (table.slurm_problem or "")
