"""Resolves a name to runs and their SLURM jobs, and cancels or requeues these jobs.

A name is that of an array, of one run of an array, or of a single run.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from headway.errors import ClusterError, UsageError
from headway.launch import cluster
from headway.launch.scontrol import SlurmJob
from headway.objectstore import Store
from headway.runs import Run, submissions
from headway.runs.submissions import Submission


@dataclass(frozen=True)
class Selection:
    """The runs that a name selects, and the submission that they belong to."""

    store: Store
    name: str
    submission: Submission | None = None
    """None for a run that `headway submit` did not submit."""
    indices: Sequence[int] = (0,)
    """Indices of the selected members of the submission."""

    @property
    def runs(self) -> list[str]:
        """Names of the selected runs."""
        return [self.submission.members[index].run for index in self.indices] if self.submission else [self.name]

    @property
    def whole(self) -> Submission | None:
        """The submission, if all of its members are selected."""
        return self.submission if self.submission and len(self.indices) == len(self.submission.members) else None

    @property
    def array(self) -> Submission | None:
        """The submission, if the name is that of an array."""
        submission = self.submission
        return submission if submission and submission.array and submission.name == self.name else None


@dataclass
class RequeueResult:
    """The runs of a selection, by what `requeue_jobs` did with them."""

    requeued: list[str] = field(default_factory=list)
    """Runs whose running jobs were stopped and queued again."""
    waiting: list[str] = field(default_factory=list)
    """Runs whose jobs are in the queue already."""
    done: list[str] = field(default_factory=list)
    """Runs that have nothing left to train."""
    resubmitted: list[str] = field(default_factory=list)
    """Runs that were submitted again because their jobs are over."""
    job: str | None = None
    """ID of the job that trains the resubmitted runs."""


def resolve(store: Store, name: str) -> Selection:
    """Finds the runs that `name` selects.

    Raises:
        UsageError: no run and no submission has this name; lists those that exist.
    """
    if submission := submissions.find(store, name):
        return Selection(store, name, submission, range(len(submission.members)))
    if member := submissions.of_run(store, name):
        submission, index = member
        return Selection(store, name, submission, [index])
    try:
        return Selection(store, Run.open(store, name).name)
    except UsageError as error:
        submitted = ", ".join(each.name for each in submissions.all_submissions(store)) or "none"
        raise UsageError(f"{error}; submissions: {submitted}") from None


def find_jobs(selection: Selection) -> Mapping[int, SlurmJob]:
    """The newest job of each selected run, by the member's index, for the jobs that SLURM still knows.

    The job of a run that was submitted by hand, with `sbatch`, is that of its newest claim.

    Raises:
        UsageError: no SLURM job has trained the run.
        ClusterError: SLURM does not answer.
    """
    if selection.submission:
        jobs = cluster.member_jobs(selection.submission)
        return {index: jobs[index] for index in selection.indices if index in jobs}
    attempts = Run(selection.store, selection.name).history().attempts
    holder = attempts[-1].claim.holder if attempts else None
    if holder is None or not holder.job:
        trained = f"; {holder} trained it last" if holder else ""
        raise UsageError(f"run {selection.name} was not started by SLURM{trained}")
    job = cluster.job(holder.job)
    return {0: job} if job else {}


def cancel_jobs(selection: Selection) -> list[str]:
    """Cancels the waiting and running jobs for good. Returns their IDs.

    Raises:
        UsageError: no job waits or runs.
        ClusterError: SLURM does not answer.
    """
    active = [job for job in find_jobs(selection).values() if job.is_active]
    if not active:
        raise UsageError(f"no job of {selection.name} waits or runs; there is nothing to cancel")
    ids = [job.id for job in active]
    cluster.cancel(dict.fromkeys(job.array_id or job.id for job in active) if selection.array else ids)
    if selection.whole:
        _set_cancelled(selection.store, selection.whole, cancelled=True)
    return ids


def requeue_jobs(selection: Selection) -> RequeueResult:
    """Puts the runs that are not done back into the queue: requeues running jobs, and resubmits runs without a job.

    Raises:
        UsageError: the job was submitted by hand and is over.
        ClusterError: SLURM does not answer.
    """
    jobs, done, result = find_jobs(selection), _done(selection), RequeueResult()
    over = []
    for index, run in zip(selection.indices, selection.runs, strict=True):
        job = jobs.get(index)
        if run in done:
            result.done.append(run)
        elif job and job.is_pending:
            result.waiting.append(run)
        elif job and job.is_running:
            (result.requeued if _requeue(job) else result.waiting).append(run)
        else:
            result.resubmitted.append(run)
            over.append(index)
    submission = selection.submission
    if result.requeued and submission:
        submission = _set_cancelled(selection.store, submission, cancelled=False)
    if over and submission:
        from headway.launch.submission import submit_again  # imported late: only resubmitting needs submitit

        indices = None if len(over) == len(submission.members) else over
        result.job = submit_again(selection.store, submission, indices).job
    elif over:
        raise UsageError(f"the job of run {selection.name} is over; submit it again, as it was submitted before")
    return result


def _done(selection: Selection) -> set[str]:
    """The selected runs that have nothing left to train."""
    with ThreadPoolExecutor(selection.store.readers) as readers:
        done = readers.map(lambda run: Run(selection.store, run).history().done, selection.runs)
        return {run for run, is_done in zip(selection.runs, done, strict=True) if is_done}


def _requeue(job: SlurmJob) -> bool:
    """Requeues a running job. Returns False if SLURM has already done so."""
    try:
        cluster.requeue(job.id)
    except ClusterError as error:
        if "pending execution" not in str(error):
            raise
        return False
    return True


def _set_cancelled(store: Store, submission: Submission, *, cancelled: bool) -> Submission:
    """Stores whether the submission's jobs are cancelled for good."""
    jobs = [job.model_copy(update={"cancelled": cancelled}) for job in submission.jobs]
    submission = submission.model_copy(update={"jobs": jobs})
    submissions.save(store, submission)
    return submission
