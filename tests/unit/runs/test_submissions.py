"""Submissions are found by name and by each of their runs."""

import json

import pytest
from tests.memory import MemoryStore

from headway.errors import DamageError, UsageError
from headway.runs import keys, submissions
from headway.runs.submissions import Member, Submission, SubmittedJob


def submission(name: str, *runs: str, jobs: tuple[SubmittedJob, ...] = ()) -> Submission:
    """A submission of runs."""
    return Submission(
        name=name, cluster="c", user="u", host="h", folder="/", time=0, recipe="", array=runs != (name,), nodes_min=1,
        nodes_max=1, members=[Member(run=run, overrides=[]) for run in runs], ranks=1, trace="", store="", sbatch="",
        logs="", jobs=list(jobs),
    )  # fmt: skip


@pytest.fixture
def store() -> MemoryStore:
    """An array, a single run, and an array with a dot in its name."""
    store = MemoryStore()
    for each in (submission("slm", "slm.seed-1", "slm.rate-1.5"), submission("one", "one"), submission("a.b", "a.b.0")):
        submissions.save(store, each)
    return store


def test_a_submission_is_read_as_it_was_written(store: MemoryStore) -> None:
    """A missing one is None, or an error that names the others."""
    assert submissions.find(store, "slm") == submission("slm", "slm.seed-1", "slm.rate-1.5")
    assert submissions.find(store, "nobody") is None
    assert [each.name for each in submissions.all_submissions(store)] == ["a.b", "one", "slm"]
    with pytest.raises(UsageError, match=r"no submission nobody .*it has: a\.b, one, slm"):
        submissions.get(store, "nobody")


@pytest.mark.parametrize(
    ("run", "expected"),
    [("slm.seed-1", ("slm", 0)), ("slm.rate-1.5", ("slm", 1)), ("one", ("one", 0)), ("a.b.0", ("a.b", 0))],
)
def test_a_run_finds_its_submission(store: MemoryStore, run: str, expected: tuple[str, int]) -> None:
    """The run's name begins with the submission's, and both may have dots."""
    found = submissions.of_run(store, run)
    assert found
    assert (found[0].name, found[1]) == expected


@pytest.mark.parametrize("run", ["slm", "slm.seed-2", "a.b", "seed-1", "other"])
def test_a_run_of_no_submission_finds_none(store: MemoryStore, run: str) -> None:
    """The name of an array is not a run."""
    assert submissions.of_run(store, run) is None


def test_the_newest_job_of_a_member_counts() -> None:
    """Jobs for other members do not count."""
    array = submission(
        "a", "a.0", "a.1", "a.2", jobs=(SubmittedJob(job="5", time=1), SubmittedJob(job="7", time=2, members=[1]))
    )
    assert [array.job_of(index) for index in range(3)] == ["5_0", "7_1", "5_2"]
    assert array.job == "7"
    assert submission("one", "one", jobs=(SubmittedJob(job="9", time=1),)).job_of(0) == "9"
    assert submission("one", "one").job_of(0) is None


def test_fields_of_a_newer_headway_are_ignored(store: MemoryStore) -> None:
    """A job may run an older Headway than its submission; damage is an error."""
    data = store.get(keys.submission("one"))
    store.put(keys.submission("one"), [data.replace(b'"name"', b'"later": 1, "name"', 1)])
    assert submissions.get(store, "one") == submission("one", "one")
    store.put(keys.submission("one"), [b"{"])
    with pytest.raises(DamageError, match=r"submissions/one\.json"):
        submissions.get(store, "one")


def test_stored_submissions_keep_their_field_names(store: MemoryStore) -> None:
    """Jobs are stored under `sent`, as they always were."""
    submissions.save(store, submission("one", "one", jobs=(SubmittedJob(job="9", time=1),)))
    stored = json.loads(store.get(keys.submission("one")))
    assert [job["job"] for job in stored["sent"]] == ["9"]
    assert "jobs" not in stored
    assert submissions.get(store, "one").job == "9"
