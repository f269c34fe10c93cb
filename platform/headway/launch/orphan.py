"""Requeues a job whose batch host is gone; runs on another node of the job.

SLURM does not requeue a `--no-kill` job that loses its batch host. The job would stay allocated with nothing running in
it, so one of the remaining nodes requeues it.
"""

import os
import time

from headway.errors import ClusterError
from headway.events.job_events import JobOrphaned, JobRescued, JobSlurmAway
from headway.launch import cluster
from headway.telemetry import environment_trace, open_log

POLL_SECONDS = 5.0


def requeue_orphan(run: str) -> None:
    """Waits until SLURM reports this job's batch host as down, and requeues the job.

    Returns at once outside a SLURM job, and as soon as the job has ended or was requeued otherwise.
    """
    job_id, restarts = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if job_id is None:
        return
    trace = environment_trace()
    log = open_log(run=run, job=job_id, restart=restarts, trace_id=trace.trace_id if trace else None)
    log.write(JobOrphaned(action="waiting until SLURM reports the batch host as down"))
    while True:
        try:
            job = cluster.job(job_id)
            if job is None or job.state != "RUNNING" or job.restarts > restarts:
                return
            host = job.batch_host
            if host is None or host not in job.nodes or cluster.down_nodes([host]):
                cluster.requeue(job.id)
                log.write(JobRescued(lost=host))
                return
        except ClusterError as error:
            log.write(JobSlurmAway(problem=str(error)))
        time.sleep(POLL_SECONDS)
