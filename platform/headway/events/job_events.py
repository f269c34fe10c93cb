"""Events of a run's job on SLURM.

Each line also has `run`, `job`, `restart` and `trace_id`.
"""

from collections.abc import Sequence
from typing import Literal

from headway.events.event import LogEvent, event


@event("job.launched")
class JobLaunched(LogEvent):
    """The job launches training on its nodes."""

    machines: Sequence[str]
    """Names of the nodes."""
    ranks: int
    """Number of ranks, over all nodes."""
    launch: str
    """ID of the launch."""


@event("job.verdict")
class JobVerdict(LogEvent):
    """A launch has ended, and the job has decided what to do next."""

    action: Literal["leave", "again", "requeue"]
    """End, launch again, or have SLURM requeue the job."""
    why: str
    """Reason of the decision."""
    exclude: Sequence[str]
    """Nodes that the job avoids from now on."""


@event("job.requeue_failed", level="warning")
class JobRequeueFailed(LogEvent):
    """SLURM refused to requeue the job, which ends."""

    problem: str
    """SLURM's error."""
    action: str
    """What the user can do."""


@event("job.slurm_away", level="warning")
class JobSlurmAway(LogEvent):
    """slurmctld does not answer; the job asks again."""

    problem: str
    """The error of the command."""


@event("job.orphaned", level="warning")
class JobOrphaned(LogEvent):
    """The batch host of the job is unreachable from another node of it."""

    action: str
    """What the node does."""


@event("job.rescued", level="warning")
class JobRescued(LogEvent):
    """A node has requeued the job whose batch host is down."""

    lost: str | None
    """Name of the batch host; null if SLURM names none any more."""


JobEvent = JobLaunched | JobVerdict | JobRequeueFailed | JobSlurmAway | JobOrphaned | JobRescued
