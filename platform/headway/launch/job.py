"""Trains a run inside a SLURM job; runs on the batch host.

Launches training on the job's nodes, waits for its end, and does what `requeue_policy` decides: launch again without a
lost node, have SLURM requeue the job, or leave.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from headway import recipe as recipes
from headway.errors import ClusterError, UsageError
from headway.events.job_events import JobLaunched, JobRequeueFailed, JobSlurmAway, JobVerdict
from headway.launch import cluster
from headway.launch.job_step import JobStep
from headway.launch.plan import Plan
from headway.launch.requeue_policy import FAILED, LaunchResult, RequeueDecision, decide
from headway.launch.resources import lead_seconds
from headway.launch.scontrol import SlurmJob
from headway.runs import Run
from headway.stop_signals import PREEMPTED
from headway.telemetry import environment_trace, open_log
from headway.telemetry.metrics_server import metrics_config
from headway.train.host.preemption import STOP, Preemption

T = TypeVar("T")

POLL_SECONDS = 0.2
JOURNAL_SECONDS = 5.0
"""Interval of reading the journal for a launch's outcome while srun still runs [s]."""
LINGER_SECONDS = 20.0
"""Time for srun to end once the journal has the outcome [s]; srun may wait for nodes that are gone."""
SLURMCTLD_SECONDS = 300.0
"""Longest outage of slurmctld that the job waits for, between launches and at its end [s]."""


def run_job(plan: Plan) -> RequeueDecision:
    """Trains `plan` inside this job until it has to leave or is requeued. Returns the last decision.

    Raises:
        UsageError: this process is not in a SLURM job.
    """
    return JobRunner(plan).train()


class JobRunner:
    """Runs one incarnation of a job: the time between two requeues."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.preemption = plan, Preemption().listen()
        self.run = Run(plan.store, plan.run)
        try:
            self.job_id = os.environ["SLURM_JOB_ID"]
        except KeyError:
            raise UsageError(
                "headway job is the command that a batch script runs inside a SLURM job; "
                "use headway submit RECIPE, sbatch jobs/slurm/pretrain.sbatch RECIPE, or headway train RECIPE here"
            ) from None
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        trace = environment_trace()
        exposure = metrics_config()
        self.linger = LINGER_SECONDS + (exposure.linger if exposure else 0.0)
        self.log = open_log(
            quiet=plan.quiet,
            run=plan.run,
            job=self.job_id,
            restart=self.restarts,
            trace_id=trace.trace_id if trace else None,
        )
        self.bad_nodes: set[str] = set()
        """Nodes of the job that are no longer used."""
        self.unclaimed = 0
        """Number of consecutive launches that ended before they claimed the run."""
        self.claimed = False
        """Whether a launch has claimed the run; its ledger then contains the time in SLURM's queue."""

    def train(self) -> RequeueDecision:
        """Launches until the decision is to leave or to requeue."""
        while True:
            job = self.slurm_job()
            nodes = self.usable_nodes(job)
            if len(nodes) < self.plan.min_nodes:
                why = f"only {len(nodes)} usable nodes, and the run needs {self.plan.min_nodes}"
                decision = RequeueDecision("requeue", why, exclude=tuple(self.bad_nodes))
            else:
                decision = self.decide(self.launch(nodes, None if self.claimed else self.queue_times(job)))
            self.log.write(JobVerdict(action=decision.action, why=decision.why, exclude=list(decision.exclude)))
            self.bad_nodes |= set(decision.exclude)
            if decision.action == "requeue":
                return self.requeue(decision)
            if decision.action == "leave":
                return decision

    def usable_nodes(self, job: SlurmJob | None) -> list[str]:
        """The job's nodes that are up and not bad, at most as many as the batch has lanes for."""
        names = job.nodes if job else []
        down = self.down_nodes(names)
        usable = [name for name in names if name not in self.bad_nodes and name not in down]
        return usable[: max(1, self.plan.recipe.train.lanes // self.plan.ranks)]

    def launch(self, nodes: Sequence[str], queue_times: str | None) -> LaunchResult:
        """Runs `headway train` on `nodes` until it ends."""
        plan = self.plan
        if self.preemption.level:
            return LaunchResult("", PREEMPTED)
        arguments = ["--run", plan.run, "--store", plan.store.url, "--nproc", str(plan.ranks)]
        arguments += ["--quiet"] if plan.quiet else []
        step = JobStep(nodes, arguments, recipes.to_yaml(plan.recipe), queue_times)
        self.log.write(JobLaunched(machines=list(nodes), ranks=len(nodes) * plan.ranks, launch=step.launch))
        self.monitor(step)
        claimed = bool(self.run.history().attempts_of(step.launch))
        self.claimed = self.claimed or claimed
        self.unclaimed = 0 if claimed else self.unclaimed + 1
        lost_nodes = tuple(sorted(self.down_nodes(nodes)))
        signalled = bool(self.preemption.level)
        return LaunchResult(step.launch, step.exit_code, lost_nodes, self.unclaimed, signalled=signalled)

    def monitor(self, step: JobStep) -> None:
        """Waits until a step ends. Forwards signals, which this process may be the only one to receive.

        srun learns late, or never, that a node is gone, so an outcome in the journal ends the step as well.
        """
        forwarded, next_check, kill_at = 0, time.monotonic() + JOURNAL_SECONDS, float("inf")
        while not step.wait(POLL_SECONDS):
            now = time.monotonic()
            if self.preemption.level > forwarded:
                forwarded = self.preemption.level
                step.request_stop()
            if now >= next_check:
                next_check = now + JOURNAL_SECONDS
                if any(attempt.end for attempt in self.run.history().attempts_of(step.launch)):
                    kill_at = min(kill_at, now + self.linger)
                if not forwarded and self.any_down(step.nodes):  # the ranks on that node may be alive and able to save
                    forwarded = STOP
                    step.request_stop()
            if now > kill_at:
                step.kill()

    def decide(self, result: LaunchResult) -> RequeueDecision:
        """Decides what to do after a launch."""
        recipe, job = self.plan.recipe, self.slurm_job()
        end = job.end_time if job else None
        near_limit = end is not None and end - time.time() < lead_seconds(recipe)
        return decide(recipe, self.run.history(), result, job, restarts=self.restarts, near_limit=near_limit)

    def requeue(self, decision: RequeueDecision) -> RequeueDecision:
        """Has SLURM requeue the job without the bad nodes. Returns the decision to leave if SLURM refuses."""
        job = self.slurm_job()
        if job is None:
            return decision
        try:
            cluster.requeue(job.id)
            if self.bad_nodes:
                excluded = job.fields.get("ExcNodeList", "(null)")
                names = self.bad_nodes | (set(cluster.expand_node_list(excluded)) if excluded != "(null)" else set())
                cluster.update(job.id, ExcNodeList=",".join(sorted(names)))
        except ClusterError as error:
            self.log.write(JobRequeueFailed(problem=str(error), action=f"submit the run {self.plan.run} again"))
            return RequeueDecision("leave", f"SLURM refused to requeue the job: {error}", exit_code=FAILED)
        return decision

    def any_down(self, nodes: Sequence[str]) -> bool:
        """Whether SLURM reports any of `nodes` as down. Training goes on while SLURM does not answer."""
        with contextlib.suppress(ClusterError):
            return bool(cluster.down_nodes(nodes))
        return False

    def down_nodes(self, nodes: Sequence[str]) -> set[str]:
        """Those of `nodes` that SLURM reports as down."""
        return self.retry(lambda: cluster.down_nodes(nodes))

    def slurm_job(self) -> SlurmJob | None:
        """SLURM's record of this job."""
        return self.retry(lambda: cluster.job(self.job_id))

    def retry(self, query: Callable[[], T]) -> T:
        """Returns the answer to a SLURM query; waits while slurmctld is away."""
        deadline = time.monotonic() + SLURMCTLD_SECONDS
        while True:
            try:
                return query()
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise
                self.log.write(JobSlurmAway(problem=str(error)))
                time.sleep(JOURNAL_SECONDS)

    def queue_times(self, job: SlurmJob | None) -> str | None:
        """Submit and start time of this incarnation [s since 1970], in the form that the ledger reads."""
        return f"{job.submit_time}:{job.start_time}" if job and job.submit_time and job.start_time else None
