"""What a job does after a launch: every row of the table of signals, and the limits on failures."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.memory import MemoryStore

from headway.launch.requeue_policy import LaunchResult, RequeueDecision, decide
from headway.launch.scontrol import SlurmJob, parse_jobs
from headway.recipe import Recipe
from headway.runs import Committed, Ended, Holder, Run, keys

RAW = "12"
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "ffn_width": 8},
        "train": {"tokens": 4096, "batch_tokens": 2048, "micro_batch_tokens": 2048},
    }
)
(RUNNING,) = parse_jobs(
    f"JobId={RAW} JobName=t JobState=RUNNING Reason=None Restarts=0 NodeList=node[1-2] BatchHost=node1 "
    "SubmitTime=2026-11-21T10:00:00 StartTime=2026-11-21T10:00:05 EndTime=2026-11-22T10:00:05 "
    "PreemptTime=None ExitCode=0:0"
)


class Tale:
    """A run, attempt by attempt."""

    def __init__(self) -> None:
        self.run = Run(MemoryStore(), "run")
        self.launches = 0
        self.tokens = 0

    def attempt(
        self, outcome: str | None, *, tokens: int = 0, host: str | None = None, job: str = RAW, reason: str = "r"
    ) -> "Tale":
        """Adds an attempt, with a launch of its own, that commits `tokens` more tokens."""
        self.launches += 1
        holder = Holder(host="node1", pid=1, started=1, launch=str(self.launches), job=job)
        number = self.run.journal.claim(lambda: None, holder=holder, recipe="r").seq
        if tokens:
            self.tokens += tokens
            manifest = keys.checkpoint_manifest("run", self.tokens, number)
            self.run.journal.append(Committed, number, tokens=self.tokens, manifest=manifest, sha256="0" * 64, bytes=1)
        if outcome:
            self.run.journal.append(Ended, number, outcome=outcome, reason=reason, tokens=self.tokens, host=host)
        return self

    def verdict(
        self, job: SlurmJob | None = RUNNING, *, restarts: int = 0, near_limit: bool = False, **result: object
    ) -> RequeueDecision:
        """The decision after the last launch."""
        launch = LaunchResult(str(self.launches), 1, **result)  # type: ignore[arg-type]
        return decide(RECIPE, self.run.history(), launch, job, restarts=restarts, near_limit=near_limit)


def stopped() -> Tale:
    """A run that was stopped with everything committed."""
    return Tale().attempt("preempted", tokens=10)


def killed() -> Tale:
    """A run whose ranks were killed before they recorded an outcome."""
    return Tale().attempt(None, tokens=10)


def test_what_is_done_is_left_whatever_happened_to_the_job() -> None:
    """A finished run ends the job, also in the grace time of a preemption and after a cancel."""
    tale = Tale().attempt("done", tokens=10)
    for job in (RUNNING, replace(RUNNING, preempt_time=1.0), replace(RUNNING, state="COMPLETING"), None):
        assert tale.verdict(job) == RequeueDecision("leave", "done", exit_code=0)


@pytest.mark.parametrize("tale", [stopped, killed])
@pytest.mark.parametrize(
    ("action", "job"),
    [
        pytest.param("requeue", replace(RUNNING, preempt_time=1.0), id="preempted, grace running"),
        pytest.param("leave", replace(RUNNING, state="COMPLETING", restarts=1), id="preempted without grace"),
        pytest.param("requeue", replace(RUNNING, state="COMPLETING", reason="TimeLimit"), id="time limit reached"),
        pytest.param("leave", replace(RUNNING, state="COMPLETING"), id="cancelled"),
        pytest.param("leave", replace(RUNNING, state="PENDING", restarts=1), id="node down, queued anew"),
        pytest.param("leave", None, id="unknown to SLURM"),
    ],
)
def test_every_end_that_slurm_brings_about(action: str, job: SlurmJob | None, tale: Callable[[], Tale]) -> None:
    """Each row of the table of signals has its action; a cancelled job is never requeued."""
    assert tale().verdict(job).action == action


def test_a_stop_before_the_time_limit_goes_on_in_the_queue() -> None:
    """After the warning signal the job runs, but has too little time left to launch again."""
    assert stopped().verdict(near_limit=True).action == "requeue"


def test_a_stop_that_nobody_explains_goes_on_in_the_queue() -> None:
    """A signal without a known reason requeues the job; only a cancel ends it."""
    assert stopped().verdict().action == "requeue"


def test_a_crash_begins_again_here() -> None:
    """The nodes are still allocated, so no requeue is needed."""
    verdict = Tale().attempt("failed", tokens=10, reason="out of luck").verdict()
    assert (verdict.action, "out of luck" in verdict.why) == ("again", True)
    assert killed().verdict().action == "again"


def test_a_machine_that_is_down_is_left_out() -> None:
    """The other nodes continue without it, whether its ranks could save or not."""
    for tale in (stopped(), killed()):
        verdict = tale.verdict(lost_nodes=("node2",))
        assert (verdict.action, verdict.exclude) == ("again", ("node2",))


def test_a_lost_machine_and_a_signal_go_on_in_the_queue() -> None:
    """A signal to the job counts more than a lost node."""
    assert stopped().verdict(lost_nodes=("node2",), signalled=True).action == "requeue"


def test_wrong_use_is_not_tried_again() -> None:
    """Exit code 2 means that recipe or data are wrong, and stay wrong."""
    tale = Tale()
    verdict = decide(
        RECIPE, tale.run.history(), LaunchResult("1", 2, unclaimed=1), RUNNING, restarts=0, near_limit=False
    )
    assert (verdict.action, verdict.exit_code) == ("leave", 2)


def test_failures_without_progress_end_the_job() -> None:
    """`machine.retries` failures in a row are retried; the next one ends the job with its cause."""
    tale = Tale()
    for _ in range(RECIPE.machine.retries):
        assert tale.attempt("failed").verdict().action == "again"
    verdict = tale.attempt("failed", reason="disk full").verdict()
    assert (verdict.action, verdict.exit_code, "disk full" in verdict.why) == ("leave", 1, True)


def test_progress_renews_the_budget_of_failures() -> None:
    """A run that makes progress each time is retried without a limit."""
    tale = Tale()
    for _ in range(3 * RECIPE.machine.retries):
        assert tale.attempt("failed", tokens=1).verdict().action == "again"


def test_preemptions_do_not_count_as_failures() -> None:
    """A crash after any number of preemptions is the first failure."""
    tale = Tale()
    for _ in range(RECIPE.machine.retries + 1):
        tale.attempt("preempted")
    assert tale.attempt("failed").verdict().action == "again"


def test_an_endless_loop_without_progress_ends() -> None:
    """A time limit shorter than the start-up ends the job after `machine.fruitless_attempts`."""
    tale = Tale()
    for _ in range(RECIPE.machine.fruitless_attempts - 1):
        assert tale.attempt("preempted").verdict().action == "requeue"
    assert tale.attempt("preempted").verdict().action == "leave"


def test_failures_of_another_job_do_not_count() -> None:
    """A run that is submitted again has a new limit of failures."""
    tale = Tale()
    for _ in range(RECIPE.machine.retries + 2):
        tale.attempt("failed", job="11")
    assert tale.attempt("failed").verdict().action == "again"


def test_launches_that_never_claim_the_run_end_the_job() -> None:
    """The journal does not contain these launches, so the job counts them itself."""
    assert Tale().verdict(unclaimed=RECIPE.machine.retries).action == "again"
    assert Tale().verdict(unclaimed=RECIPE.machine.retries + 1).exit_code == 1


def test_a_machine_that_failed_twice_is_excluded() -> None:
    """One failure may be chance."""
    tale = Tale().attempt("failed", tokens=1, host="node2")
    assert tale.verdict().exclude == ()
    assert tale.attempt("failed", tokens=1, host="node2").verdict().exclude == ("node2",)


def test_a_run_that_another_job_trains_is_left_to_it() -> None:
    """A fenced launch ends the job, which would otherwise fight over the run."""
    tale = Tale().attempt(None, tokens=10)
    tale.attempt(None, job="99")
    verdict = decide(RECIPE, tale.run.history(), LaunchResult("1", 1), RUNNING, restarts=0, near_limit=False)
    assert (verdict.action, verdict.exit_code) == ("leave", 1)


def test_an_exit_code_counts_only_without_an_outcome() -> None:
    """The decision then says that it rests on the exit code; a recorded outcome overrides the code."""
    for code, action in ((75, "requeue"), (2, "leave")):
        launch = LaunchResult("1", code, unclaimed=1)
        decision = decide(RECIPE, Tale().run.history(), launch, RUNNING, restarts=0, near_limit=False)
        assert (decision.action, f"by exit code {code}: the journal has no outcome" in decision.why) == (action, True)
    tale = Tale().attempt("failed", tokens=10)
    decision = decide(RECIPE, tale.run.history(), LaunchResult("1", 2), RUNNING, restarts=0, near_limit=False)
    assert (decision.action, "exit code" in decision.why) == ("again", False)
