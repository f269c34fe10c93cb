"""What was asked of SLURM is found again: by its name, and from each of its runs."""

import pytest
from tests.memory import MemoryStore

from headway.errors import DamageError, UsageError
from headway.runs import keys, submissions
from headway.runs.submissions import Member, Submission, SubmittedJob


def made(name: str, *runs: str, sent: tuple[SubmittedJob, ...] = ()) -> Submission:
    """A submission of runs."""
    return Submission(
        name=name, cluster="c", user="u", host="h", folder="/", time=0, recipe="", array=runs != (name,), nodes_min=1,
        nodes_max=1, members=[Member(run=run, overrides=[]) for run in runs], ranks=1, trace="", store="", sbatch="",
        logs="", sent=list(sent),
    )  # fmt: skip


@pytest.fixture
def store() -> MemoryStore:
    """An array, a run, and an array whose name has a point in it."""
    found = MemoryStore()
    for each in (made("slm", "slm.seed-1", "slm.rate-1.5"), made("one", "one"), made("a.b", "a.b.0")):
        submissions.save(found, each)
    return found


def test_a_submission_comes_back_as_it_was_kept(store: MemoryStore) -> None:
    """By its name; a missing one is None, or an error that names those that there are."""
    assert submissions.find(store, "slm") == made("slm", "slm.seed-1", "slm.rate-1.5")
    assert submissions.find(store, "nobody") is None
    assert [each.name for each in submissions.all_submissions(store)] == ["a.b", "one", "slm"]
    with pytest.raises(UsageError, match=r"no submission nobody .*there: a\.b, one, slm"):
        submissions.get(store, "nobody")


@pytest.mark.parametrize(
    ("run", "expected"),
    [("slm.seed-1", ("slm", 0)), ("slm.rate-1.5", ("slm", 1)), ("one", ("one", 0)), ("a.b.0", ("a.b", 0))],
)
def test_a_run_finds_its_submission(store: MemoryStore, run: str, expected: tuple[str, int]) -> None:
    """By the beginning of its name, wherever the points are."""
    found = submissions.of_run(store, run)
    assert found
    assert (found[0].name, found[1]) == expected


@pytest.mark.parametrize("run", ["slm", "slm.seed-2", "a.b", "seed-1", "other"])
def test_a_run_of_no_submission_finds_none(store: MemoryStore, run: str) -> None:
    """An array's own name is no run."""
    assert submissions.of_run(store, run) is None


def test_the_newest_job_of_a_member_counts() -> None:
    """Of those that were for it."""
    found = made(
        "a", "a.0", "a.1", "a.2", sent=(SubmittedJob(job="5", time=1), SubmittedJob(job="7", time=2, members=[1]))
    )
    assert [found.job_of(index) for index in range(3)] == ["5_0", "7_1", "5_2"]
    assert found.job == "7"
    assert made("one", "one", sent=(SubmittedJob(job="9", time=1),)).job_of(0) == "9"
    assert made("one", "one").job_of(0) is None


def test_what_a_newer_headway_adds_is_passed_over(store: MemoryStore) -> None:
    """A job may be older than whoever submitted it; what is damaged is said to be."""
    data = store.get(keys.submission("one"))
    store.put(keys.submission("one"), [data.replace(b'"name"', b'"later": 1, "name"', 1)])
    assert submissions.get(store, "one") == made("one", "one")
    store.put(keys.submission("one"), [b"{"])
    with pytest.raises(DamageError, match=r"submissions/one\.json"):
        submissions.get(store, "one")
