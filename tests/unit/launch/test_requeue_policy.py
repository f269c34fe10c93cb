"""What becomes of a job when its ranks have left: every row of the table of signals, and the budget of failures."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.memory import MemoryStore

from headway.launch.requeue_policy import LaunchResult, RequeueDecision, decide
from headway.launch.scontrol import SlurmJob, jobs_of
from headway.recipe import Recipe
from headway.runs import Committed, Ended, Holder, Run

RAW = "12"
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "ffn_width": 8},
        "train": {"tokens": 4096, "batch_tokens": 2048, "micro_batch_tokens": 2048},
    }
)
(RUNNING,) = jobs_of(
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
        """One more attempt, of a launch of its own, that committed so many more tokens."""
        self.launches += 1
        holder = Holder(host="node1", pid=1, started=1, launch=str(self.launches), job=job)
        number = self.run.journal.claim(lambda: None, holder=holder, recipe="r").seq
        if tokens:
            self.tokens += tokens
            self.run.journal.append(Committed, number, tokens=self.tokens, manifest="m", sha256="0", bytes=1)
        if outcome:
            self.run.journal.append(Ended, number, outcome=outcome, reason=reason, tokens=self.tokens, host=host)
        return self

    def verdict(
        self, job: SlurmJob | None = RUNNING, *, restarts: int = 0, time_is_up: bool = False, **left: object
    ) -> RequeueDecision:
        """What is decided after the last launch."""
        ended = LaunchResult(str(self.launches), 1, **left)  # type: ignore[arg-type]
        return decide(RECIPE, self.run.history(), ended, job, restarts=restarts, time_is_up=time_is_up)


def stopped() -> Tale:
    """A run that was stopped with everything committed."""
    return Tale().attempt("preempted", tokens=10)


def killed() -> Tale:
    """A run whose ranks were killed before they could say anything."""
    return Tale().attempt(None, tokens=10)


def test_what_is_done_is_left_whatever_happened_to_the_job() -> None:
    """Also in the grace time of a preemption, and after a cancel."""
    tale = Tale().attempt("done", tokens=10)
    for job in (RUNNING, replace(RUNNING, preempted=1.0), replace(RUNNING, state="COMPLETING"), None):
        assert tale.verdict(job) == RequeueDecision("leave", "done", exit_code=0)


@pytest.mark.parametrize("tale", [stopped, killed])
@pytest.mark.parametrize(
    ("action", "job"),
    [
        pytest.param("requeue", replace(RUNNING, preempted=1.0), id="preempted, grace running"),
        pytest.param("leave", replace(RUNNING, state="COMPLETING", restarts=1), id="preempted without grace"),
        pytest.param("requeue", replace(RUNNING, state="COMPLETING", reason="TimeLimit"), id="time limit reached"),
        pytest.param("leave", replace(RUNNING, state="COMPLETING"), id="cancelled"),
        pytest.param("leave", replace(RUNNING, state="PENDING", restarts=1), id="node down, queued anew"),
        pytest.param("leave", None, id="unknown to SLURM"),
    ],
)
def test_every_end_that_slurm_brings_about(action: str, job: SlurmJob | None, tale: Callable[[], Tale]) -> None:
    """The table of notes/slurm.md; a cancelled job is never brought back to life."""
    assert tale().verdict(job).action == action


def test_a_stop_before_the_time_limit_goes_on_in_the_queue() -> None:
    """The lead signal: the job runs, with too little time left to go on here."""
    assert stopped().verdict(time_is_up=True).action == "requeue"


def test_a_stop_that_nobody_explains_goes_on_in_the_queue() -> None:
    """Somebody signalled the ranks: whoever wants the run to end cancels it."""
    assert stopped().verdict().action == "requeue"


def test_a_crash_begins_again_here() -> None:
    """No need to queue: the machines are still there."""
    verdict = Tale().attempt("failed", tokens=10, reason="out of luck").verdict()
    assert (verdict.action, "out of luck" in verdict.why) == ("again", True)
    assert killed().verdict().action == "again"


def test_a_machine_that_is_down_is_left_out() -> None:
    """Whether the ranks could save or not: the others go on without it."""
    for tale in (stopped(), killed()):
        verdict = tale.verdict(lost=("node2",))
        assert (verdict.action, verdict.exclude) == ("again", ("node2",))


def test_a_lost_machine_and_a_signal_go_on_in_the_queue() -> None:
    """The job was asked to stop besides: that counts."""
    assert stopped().verdict(lost=("node2",), signalled=True).action == "requeue"


def test_wrong_use_is_not_tried_again() -> None:
    """Exit code 2: the recipe or the data are wrong, and will be."""
    tale = Tale()
    verdict = decide(
        RECIPE, tale.run.history(), LaunchResult("1", 2, unclaimed=1), RUNNING, restarts=0, time_is_up=False
    )
    assert (verdict.action, verdict.exit_code) == ("leave", 2)


def test_failures_without_progress_end_the_job() -> None:
    """machine.retries in a row are tried again; the next one is the last, and says what it was."""
    tale = Tale()
    for _ in range(RECIPE.machine.retries):
        assert tale.attempt("failed").verdict().action == "again"
    verdict = tale.attempt("failed", reason="disk full").verdict()
    assert (verdict.action, verdict.exit_code, "disk full" in verdict.why) == ("leave", 1, True)


def test_progress_renews_the_budget_of_failures() -> None:
    """A run that gets further each time may fail for ever."""
    tale = Tale()
    for _ in range(3 * RECIPE.machine.retries):
        assert tale.attempt("failed", tokens=1).verdict().action == "again"


def test_preemptions_do_not_count_as_failures() -> None:
    """A crash after any number of them is the first one."""
    tale = Tale()
    for _ in range(RECIPE.machine.retries + 1):
        tale.attempt("preempted")
    assert tale.attempt("failed").verdict().action == "again"


def test_an_endless_loop_without_progress_ends() -> None:
    """A time limit shorter than the start-up: given up after machine.fruitless_attempts."""
    tale = Tale()
    for _ in range(RECIPE.machine.fruitless_attempts - 1):
        assert tale.attempt("preempted").verdict().action == "requeue"
    assert tale.attempt("preempted").verdict().action == "leave"


def test_failures_of_another_job_do_not_count() -> None:
    """Whoever submits a run again gives it new chances."""
    tale = Tale()
    for _ in range(RECIPE.machine.retries + 2):
        tale.attempt("failed", job="11")
    assert tale.attempt("failed").verdict().action == "again"


def test_launches_that_never_claim_the_run_end_the_job() -> None:
    """Nothing of them is in the journal, so the job counts them itself."""
    assert Tale().verdict(unclaimed=RECIPE.machine.retries).action == "again"
    assert Tale().verdict(unclaimed=RECIPE.machine.retries + 1).exit_code == 1


def test_a_machine_that_failed_twice_is_excluded() -> None:
    """Once may be chance."""
    tale = Tale().attempt("failed", tokens=1, host="node2")
    assert tale.verdict().exclude == ()
    assert tale.attempt("failed", tokens=1, host="node2").verdict().exclude == ("node2",)


def test_a_run_that_another_job_trains_is_left_to_it() -> None:
    """The launch was fenced: to begin again would be to fight over the run."""
    tale = Tale().attempt(None, tokens=10)
    tale.attempt(None, job="99")
    verdict = decide(RECIPE, tale.run.history(), LaunchResult("1", 1), RUNNING, restarts=0, time_is_up=False)
    assert (verdict.action, verdict.exit_code) == ("leave", 1)
