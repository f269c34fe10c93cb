"""Where the runs of a submission stand: the run store and SLURM, one row each."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from headway.errors import ClusterError
from headway.launch.cluster import SlurmJob
from headway.launch.queue import queue
from headway.objectstore import Store
from headway.reports.overview import RunOverview, overview
from headway.runs import run_names
from headway.runs.submissions import Submission

ORDER = (
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
"""States, in which people want to see them counted."""


@dataclass(frozen=True)
class MemberRow:
    """One member."""

    run: str
    index: int
    state: str
    """The run's own once it has begun; before, `submitted`, `pending`, `starting`, `ending`, `cancelled`, `failed`, or
    `lost`: SLURM does not know it any more. `starting` is also a run between two attempts of one job."""
    seen: RunOverview | None
    """Of a run that has begun."""
    job: SlurmJob | None
    """Its newest job, as far as SLURM knows it."""


@dataclass(frozen=True)
class MemberTable:
    """All members of a submission."""

    submission: Submission
    rows: list[MemberRow]
    blind: str | None
    """Why SLURM could not be asked."""

    @property
    def counts(self) -> dict[str, int]:
        """How many members are in each state, those that there are."""
        counted = Counter(row.state for row in self.rows)
        return {state: counted[state] for state in ORDER if state in counted}

    @property
    def over(self) -> bool:
        """Whether nothing more will happen by itself, as far as can be seen."""
        waiting = {"running", "starting", "ending", "pending", "submitted"}
        return not any(row.state in waiting or (row.job and (row.job.waits or row.job.runs)) for row in self.rows)


def member_table(store: Store, submission: Submission, only: Sequence[int] | None = None) -> MemberTable:
    """Where all members stand, or `only` some; the store and SLURM are asked side by side."""
    indices = range(len(submission.members)) if only is None else only
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(queue, submission)
        runs = [submission.members[index].run for index in indices]
        begun = set(run_names(store)).intersection(runs)
        glances = {each.run: each for each in overview(store, [run for run in runs if run in begun])}
        blind = None
        jobs: dict[int, SlurmJob] = {}
        try:
            jobs = answer.result()
        except ClusterError as error:
            blind = str(error)
    rows = []
    for index, run in zip(indices, runs, strict=True):
        seen, job = glances.get(run), jobs.get(index)
        rows.append(MemberRow(run, index, member_state(seen, job, blind=blind is not None), seen, job))
    return MemberTable(submission, rows, blind)


def member_state(seen: RunOverview | None, job: SlurmJob | None, *, blind: bool) -> str:
    """The one word for a member, from what its run says and what SLURM says."""
    if seen is None or seen.state == "new":
        if job is None:
            return "submitted" if blind else "lost"
        if job.waits or job.runs:
            return "pending" if job.waits else "ending" if job.state == "COMPLETING" else "starting"
        return "cancelled" if job.state == "CANCELLED" else "failed"
    if job is None or seen.state in {"done", "running"}:
        return seen.state
    if job.runs and job.state != "COMPLETING":
        return "starting"
    return "cancelled" if job.state == "CANCELLED" and seen.state != "failed" else seen.state
