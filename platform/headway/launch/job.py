"""A run inside a SLURM job: on the batch host, beside the ranks, until it is known what becomes of the job.

Begins a launch on all machines of the job, waits for its end, and does what the journal and SLURM's own record of the
job call for: begin again without a lost machine, ask to be queued anew, or leave.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from headway import recipe as recipes
from headway.errors import ClusterError, UsageError
from headway.launch import cluster
from headway.launch.job_step import JobStep
from headway.launch.plan import Plan
from headway.launch.requeue_policy import FAILED, PREEMPTED, LaunchResult, RequeueDecision, decide
from headway.launch.resources import lead_seconds
from headway.launch.scontrol import SlurmJob
from headway.runs import Run
from headway.telemetry import environment_trace, open_log
from headway.telemetry.exposition import exposure_from_environment
from headway.train.preemption import STOP, Preemption

T = TypeVar("T")

POLL_SECONDS = 0.2
JOURNAL_SECONDS = 5.0
"""How often the journal is asked whether a launch has ended that srun still waits for [s]."""
LINGER_SECONDS = 20.0
"""How long srun may go on after the journal has said how the launch ended [s]: it waits for machines that are gone."""
SLURM_PATIENCE_SECONDS = 300.0
"""How long slurmctld may be away between two launches, and when the job ends [s]."""


def run_job(plan: Plan) -> RequeueDecision:
    """Train `plan` inside this job until there is nothing more to do here; SLURM is asked to go on, if need be.

    Raises:
        UsageError: this process is not in a SLURM job.
    """
    return JobRunner(plan).work()


class JobRunner:
    """One incarnation of the job."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.stop = plan, Preemption().listen()
        self.run = Run(plan.store, plan.run)
        try:
            self.raw = os.environ["SLURM_JOB_ID"]
        except KeyError:
            raise UsageError(
                "headway job is what a batch script runs inside a SLURM job; "
                "use headway submit RECIPE, sbatch jobs/slurm/pretrain.sbatch RECIPE, or headway train RECIPE here"
            ) from None
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        trace = environment_trace()
        exposure = exposure_from_environment()
        self.linger = LINGER_SECONDS + (exposure.linger if exposure else 0.0)
        self.log = open_log(
            quiet=plan.quiet,
            run=plan.run,
            job=self.raw,
            restart=self.restarts,
            trace_id=trace.trace_id if trace else None,
        )
        self.bad: set[str] = set()
        """Machines of the job that are not used any more."""
        self.unclaimed = 0
        """Launches in a row that never claimed the run."""
        self.claimed = False
        """Whether any launch of this incarnation did, and has the time in the queue in its books."""

    def work(self) -> RequeueDecision:
        """Launch until a verdict says otherwise."""
        while True:
            job = self.job()
            machines = self.machines(job)
            if len(machines) < self.plan.least_machines:
                verdict = RequeueDecision("requeue", f"only {len(machines)} machines are left", exclude=tuple(self.bad))
            else:
                left = self.launch(machines, None if self.claimed else self.queue(job))
                verdict = self.judge(left)
            self.log.info("job.verdict", action=verdict.action, why=verdict.why, exclude=list(verdict.exclude))
            self.bad |= set(verdict.exclude)
            if verdict.action == "requeue":
                return self.requeue(verdict)
            if verdict.action == "leave":
                return verdict

    def machines(self, job: SlurmJob | None) -> list[str]:
        """Those of the job that are up and not known to be bad, as many as the batch has lanes for."""
        names = job.nodes if job else []
        lost = self.down(names)
        usable = [name for name in names if name not in self.bad and name not in lost]
        return usable[: max(1, self.plan.recipe.train.lanes // self.plan.ranks)]

    def launch(self, machines: Sequence[str], queue: str | None) -> LaunchResult:
        """Have `headway train` run on `machines` to its end."""
        plan = self.plan
        if self.stop.level:
            return LaunchResult("", PREEMPTED)
        arguments = ["--run", plan.run, "--store", plan.store.url, "--nproc", str(plan.ranks)]
        arguments += ["--quiet"] if plan.quiet else []
        step = JobStep(machines, arguments, recipes.to_yaml(plan.recipe), queue)
        self.log.info("job.launched", machines=list(machines), ranks=len(machines) * plan.ranks, launch=step.launch)
        self.attend(step)
        claimed = bool(self.run.history().launched(step.launch))
        self.claimed = self.claimed or claimed
        self.unclaimed = 0 if claimed else self.unclaimed + 1
        lost = sorted(self.down(machines))
        return LaunchResult(step.launch, step.exit_code, tuple(lost), self.unclaimed, signalled=bool(self.stop.level))

    def attend(self, step: JobStep) -> None:
        """Wait for a step's end; pass on a signal that came to this process, perhaps to it alone.

        Of a machine that is gone srun hears late, or never: what the journal says is enough.
        """
        told, next_look, over = 0, time.monotonic() + JOURNAL_SECONDS, float("inf")
        while not step.ended(POLL_SECONDS):
            now = time.monotonic()
            if self.stop.level > told:
                told = self.stop.level
                step.ask_to_stop()
            if now >= next_look:
                next_look = now + JOURNAL_SECONDS
                if any(each.ended for each in self.run.history().launched(step.launch)):
                    over = min(over, now + self.linger)
                if not told and self.misses_some(step.machines):  # their ranks may well be alive, and can save
                    told = STOP
                    step.ask_to_stop()
            if now > over:
                step.kill()

    def judge(self, left: LaunchResult) -> RequeueDecision:
        """What to do after a launch."""
        recipe, job = self.plan.recipe, self.job()
        near = job is not None and job.ends is not None and job.ends - time.time() < lead_seconds(recipe)
        return decide(recipe, self.run.history(), left, job, restarts=self.restarts, time_is_up=near)

    def requeue(self, verdict: RequeueDecision) -> RequeueDecision:
        """Ask SLURM to queue the job anew, without the bad machines."""
        job = self.job()
        if job is None:
            return verdict
        try:
            cluster.requeue(job.id)
            if self.bad:
                before = job.fields.get("ExcNodeList", "(null)")
                names = sorted(self.bad | (set(cluster.hosts(before)) if before != "(null)" else set()))
                cluster.update(job.id, ExcNodeList=",".join(names))
        except ClusterError as error:
            self.log.warning("job.requeue_failed", problem=str(error), action=f"submit the run {self.plan.run} again")
            return RequeueDecision("leave", f"SLURM would not queue it anew: {error}", exit_code=FAILED)
        return verdict

    def misses_some(self, machines: Sequence[str]) -> bool:
        """Whether SLURM has given up any of `machines`; while it does not answer, training goes on."""
        with contextlib.suppress(ClusterError):
            return bool(cluster.down(machines))
        return False

    def down(self, machines: Sequence[str]) -> set[str]:
        """Which of `machines` SLURM has given up."""
        return self.answer(lambda: cluster.down(machines))

    def job(self) -> SlurmJob | None:
        """What SLURM says of this job."""
        return self.answer(lambda: cluster.job(self.raw))

    def answer(self, ask: Callable[[], T]) -> T:
        """What SLURM answers; waits for a slurmctld that is away."""
        deadline = time.monotonic() + SLURM_PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise
                self.log.warning("job.slurm_away", problem=str(error))
                time.sleep(JOURNAL_SECONDS)

    def queue(self, job: SlurmJob | None) -> str | None:
        """When SLURM queued and started this incarnation [s since 1970], as the ledger takes it."""
        return f"{job.submitted}:{job.started}" if job and job.submitted and job.started else None
