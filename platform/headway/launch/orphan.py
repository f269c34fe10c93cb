"""What the other machines of a job do when the one that its batch script ran on is gone.

A job that may lose machines (--no-kill) is not queued anew by SLURM when it loses that one, and would stay as it is,
with nobody in it: so a machine that is left asks for it.
"""

import os
import time

from headway.errors import ClusterError
from headway.launch import cluster
from headway.telemetry import environment_trace, open_log

POLL_SECONDS = 5.0


def requeue_orphan(run: str) -> None:
    """Wait until SLURM has noticed that this job's batch host is gone, and ask for the job to be queued anew.

    Returns at once if there is no such job, and as soon as the job has ended or was queued anew by somebody else.
    """
    raw, restarts = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if raw is None:
        return
    trace = environment_trace()
    log = open_log(run=run, job=raw, restart=restarts, trace_id=trace.trace_id if trace else None)
    log.warning("job.orphaned", action="waiting for SLURM to notice that the batch host is gone")
    while True:
        try:
            job = cluster.job(raw)
            if job is None or job.state != "RUNNING" or job.restarts > restarts:
                return
            lost = job.batch_host
            if lost is None or lost not in job.nodes or cluster.down([lost]):
                cluster.requeue(job.id)
                log.warning("job.rescued", lost=lost)
                return
        except ClusterError as error:
            log.warning("job.slurm_away", problem=str(error))
        time.sleep(POLL_SECONDS)
