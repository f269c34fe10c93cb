"""The states of a submission's runs, from the run store and from SLURM."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from headway.errors import ClusterError
from headway.launch import cluster
from headway.launch.scontrol import SlurmJob
from headway.objectstore import Store
from headway.reports.overview import RunOverview, overview
from headway.runs import run_names
from headway.runs.submissions import Submission

STATES = (
    "done",
    "running",
    "starting",
    "ending",
    "pending",
    "submitted",
    "preempted",
    "killed",
    "failed",
    "cancelled",
    "lost",
)
"""Member states in the order in which their counts are shown."""
ACTIVE_STATES = {"running", "starting", "ending", "pending", "submitted"}
"""States of members that will go on by themselves."""


@dataclass(frozen=True)
class MemberRow:
    """One member of a submission: its run and its job."""

    run: str
    index: int
    state: str
    """State of the run once it is claimed. Before that: `submitted`, `pending`, `starting`, `ending`, `cancelled`,
    `failed`, or `lost` if SLURM no longer knows its job. `starting` is also the time between two attempts of a job."""
    overview: RunOverview | None
    """None until the run exists."""
    job: SlurmJob | None
    """The newest job, if SLURM still knows it."""


@dataclass(frozen=True)
class MemberTable:
    """The selected members of a submission."""

    submission: Submission
    rows: list[MemberRow]
    slurm_problem: str | None
    """Why SLURM could not be queried; None if it answered."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of members by state, without states that no member is in."""
        counts = Counter(row.state for row in self.rows)
        return {state: counts[state] for state in STATES if state in counts}

    @property
    def is_over(self) -> bool:
        """Whether no member runs or will run by itself."""
        return not any(row.state in ACTIVE_STATES or (row.job and row.job.is_active) for row in self.rows)


def member_table(store: Store, submission: Submission, indices: Sequence[int] | None = None) -> MemberTable:
    """The states of the members `indices`; default: all. Queries the store and SLURM in parallel."""
    indices = range(len(submission.members)) if indices is None else indices
    with ThreadPoolExecutor(1) as executor:
        query = executor.submit(cluster.member_jobs, submission)
        runs = [submission.members[index].run for index in indices]
        existing = set(run_names(store)).intersection(runs)
        overviews = {each.run: each for each in overview(store, [run for run in runs if run in existing])}
        slurm_problem = None
        jobs: dict[int, SlurmJob] = {}
        try:
            jobs = query.result()
        except ClusterError as error:
            slurm_problem = str(error)
    rows = []
    for index, run in zip(indices, runs, strict=True):
        its_overview, job = overviews.get(run), jobs.get(index)
        state = member_state(its_overview, job, slurm_answered=slurm_problem is None)
        rows.append(MemberRow(run, index, state, its_overview, job))
    return MemberTable(submission, rows, slurm_problem)


def member_state(overview: RunOverview | None, job: SlurmJob | None, *, slurm_answered: bool) -> str:
    """The state of a member, from its run's state and its job's state."""
    if overview is None or overview.state == "new":
        if job is None:
            return "lost" if slurm_answered else "submitted"
        if job.is_active:
            return "pending" if job.is_pending else "ending" if job.state == "COMPLETING" else "starting"
        return "cancelled" if job.state == "CANCELLED" else "failed"
    if job is None or overview.state in {"done", "running"}:
        return overview.state
    if job.is_running and job.state != "COMPLETING":
        return "starting"
    return "cancelled" if job.state == "CANCELLED" and overview.state != "failed" else overview.state
