"""What SLURM says of a submission's jobs, by member."""

from headway.errors import ClusterError
from headway.launch import cluster
from headway.launch.cluster import SlurmJob
from headway.runs.submissions import Submission


def queue(submission: Submission) -> dict[int, SlurmJob]:
    """The newest job of each member that SLURM knows of; it forgets jobs soon after their end.

    Raises:
        ClusterError: SLURM is not there, does not answer, or is another cluster than that of the submission.
    """
    if not submission.sent:
        return {}
    here = cluster.setting("ClusterName")
    if submission.cluster != here:
        raise ClusterError(
            f"{submission.name} was submitted to the cluster {submission.cluster}, and this is {here}; go there"
        )
    found: dict[int, SlurmJob] = {}
    known = {job.id: job for job in cluster.jobs([sent.job for sent in submission.sent])}
    for index in range(len(submission.members)):
        job = submission.job_of(index)
        if job in known:
            found[index] = known[job]
    return found
