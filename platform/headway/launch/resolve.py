"""What a name means to SLURM: all of a submission, one run of it, or a run whose job somebody submitted by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from headway.errors import ClusterError, UsageError
from headway.launch import cluster
from headway.launch.cluster import SlurmJob
from headway.launch.queue import queue
from headway.objectstore import Store
from headway.reports.overview import overview
from headway.runs import Run, run_names, submissions
from headway.runs.submissions import Submission


@dataclass(frozen=True)
class Target:
    """Runs, and the jobs that train them."""

    store: Store
    name: str
    submission: Submission | None
    indices: Sequence[int] = ()
    """Which members of the submission."""
    job: str | None = None
    """Raw id of a job that was submitted by hand."""

    @property
    def whole(self) -> bool:
        """Whether it is all of a submission."""
        return self.submission is not None and len(self.indices) == len(self.submission.members)


@dataclass
class RequeueResult:
    """What became of each run that was to be queued anew."""

    stopped: list[str] = field(default_factory=list)
    """Runs whose jobs were stopped and queued anew."""
    waiting: list[str] = field(default_factory=list)
    """Runs that wait in the queue already."""
    done: list[str] = field(default_factory=list)
    """Runs with nothing left to train."""
    again: list[str] = field(default_factory=list)
    """Runs that were submitted again, their jobs being over."""
    job: str | None = None
    """The job that they were submitted as."""


def resolve(store: Store, name: str) -> Target:
    """What `name` means.

    Raises:
        UsageError: nothing that SLURM has ever heard of.
    """
    if found := submissions.find(store, name):
        return Target(store, name, found, range(len(found.members)))
    if member := submissions.of_run(store, name):
        return Target(store, name, member[0], [member[1]])
    if name not in run_names(store):
        there = ", ".join(each.name for each in submissions.all_submissions(store)) or "none"
        raise UsageError(f"nothing called {name} was submitted from {store.url}; submissions there: {there}")
    attempts = Run(store, name).history().attempts
    job = attempts[-1].claim.holder.job if attempts else None
    if not job:
        who = f"; it was trained last by {attempts[-1].claim.holder}" if attempts else ""
        raise UsageError(f"run {name} was not started by SLURM{who}")
    return Target(store, name, None, job=job)


def cancel(aim: Target) -> list[str]:
    """End the jobs of `aim` that wait or run, and see that they do not come back; returns their ids.

    Raises:
        UsageError: none does.
        ClusterError: SLURM does not answer.
    """
    jobs = _jobs(aim)
    alive = [job for job in jobs.values() if job.waits or job.runs]
    if not alive:
        raise UsageError(f"no job of {aim.name} waits or runs; there is nothing to cancel")
    ids = [job.id for job in alive]
    whole = aim.submission and aim.whole and aim.submission.array
    cluster.cancel(dict.fromkeys(job.array or job.id for job in alive) if whole else ids)
    if aim.submission and aim.whole:
        _mark(aim.store, aim.submission, cancelled=True)
    return ids


def requeue(aim: Target) -> RequeueResult:
    """Queue anew what is not done: a running job is stopped first, one that is over is submitted again.

    Raises:
        UsageError: a job that was submitted by hand is over.
        ClusterError: SLURM does not answer.
    """
    jobs, told, over = _jobs(aim), RequeueResult(), list[int]()
    runs = {i: aim.submission.members[i].run for i in aim.indices} if aim.submission else {0: aim.name}
    begun = set(run_names(aim.store))
    done = {each.run for each in overview(aim.store, [r for r in runs.values() if r in begun]) if each.state == "done"}
    for index, run in runs.items():
        job = jobs.get(index)
        if run in done:
            told.done.append(run)
        elif job and job.waits:
            told.waiting.append(run)
        elif job and job.runs:
            (told.stopped if _stopped(job) else told.waiting).append(run)
        else:
            told.again.append(run)
            over.append(index)
    submission = aim.submission
    if told.stopped and submission:
        submission = _mark(aim.store, submission, cancelled=False)
    if over and submission:
        # imported late: only whoever submits needs submitit
        from headway.launch.submission import submit_again

        told.job = submit_again(aim.store, submission, None if len(over) == len(submission.members) else over).job
    elif over:
        raise UsageError(f"job {aim.job} of run {aim.name} is over; submit it again, as it was submitted before")
    return told


def _mark(store: Store, submission: Submission, *, cancelled: bool) -> Submission:
    """Keep in mind that nothing, or something again, is to be expected of what was sent."""
    sent = [each.model_copy(update={"cancelled": cancelled}) for each in submission.sent]
    marked = submission.model_copy(update={"sent": sent})
    submissions.save(store, marked)
    return marked


def _stopped(job: SlurmJob) -> bool:
    """Stop a job and queue it anew; False if SLURM has just done so by itself."""
    try:
        cluster.requeue(job.id)
    except ClusterError as error:
        if "pending execution" not in str(error):
            raise
        return False
    return True


def _jobs(aim: Target) -> dict[int, SlurmJob]:
    if aim.submission:
        known = queue(aim.submission)
        return {index: known[index] for index in aim.indices if index in known}
    job = cluster.job(aim.job or "")
    return {0: job} if job else {}
