"""Decides what a job does after a launch has ended: leave, launch again, or have SLURM requeue it.

The decision rests on the outcome in the run's journal and on SLURM's record of the job. An exit code counts only if
the launch could write no outcome, and the decision then says so: torchrun and srun exit alike after a clean stop and a
crash.
Pure functions, so every case is tested without a cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headway.launch.scontrol import SlurmJob
from headway.recipe import Recipe
from headway.runs import Attempt, History
from headway.stop_signals import PREEMPTED

FAILED = 1
"""Exit code of a job that failed."""
USAGE_ERROR = 2
"""Exit code of an error that every further launch would repeat."""
BAD_NODE_FAILURES = 2
"""Failures on one node after which the job avoids it."""
RECENT_ATTEMPTS = 10
"""Number of last attempts in which failures of a node count."""

Action = Literal["leave", "again", "requeue"]
"""What the job does next: it ends, launches again on its nodes, or has SLURM requeue it."""


@dataclass(frozen=True)
class RequeueDecision:
    """What the job does next, and why."""

    action: Action
    why: str
    exit_code: int = PREEMPTED
    exclude: tuple[str, ...] = ()
    """Nodes to avoid from now on."""


@dataclass(frozen=True)
class LaunchResult:
    """How a launch ended."""

    launch: str
    """ID of the launch."""
    exit_code: int
    """Exit code of srun, which is the highest of the launchers'."""
    lost_nodes: tuple[str, ...] = ()
    """Nodes that SLURM reports as down."""
    unclaimed: int = 0
    """Number of consecutive launches, this one included, that ended before they claimed the run."""
    signalled: bool = False
    """Whether the job received a signal to stop."""


def decide(
    recipe: Recipe, history: History, result: LaunchResult, job: SlurmJob | None, *, restarts: int, near_limit: bool
) -> RequeueDecision:
    """Decides what the job does after a launch.

    `job` is SLURM's current record of the job, `restarts` the job's requeue count when this process started.
    `near_limit` says that too little time is left before the time limit to launch again.
    """
    if history.done:
        return RequeueDecision("leave", "done", exit_code=0)
    if job is None or job.is_pending or job.restarts > restarts:
        return RequeueDecision("leave", "SLURM has requeued the job by itself")
    timed_out = job.reason == "TimeLimit"
    if job.state != "RUNNING" and not timed_out:
        return RequeueDecision("leave", "the job was cancelled")
    attempts = [attempt for attempt in history.attempts if attempt.claim.holder.job == job.raw_id]
    last = history.attempts[-1] if history.attempts else None
    attempt = last if last and last.claim.holder.launch == result.launch else None
    if decision := _give_up(recipe, history, attempts, result, attempt):
        return decision
    exclude = tuple(sorted({*result.lost_nodes, *bad_nodes(attempts[-RECENT_ATTEMPTS:])}))
    stopped = _stopped_on_request(result, attempt) and (result.signalled or not result.lost_nodes)
    if stopped or job.preempt_time or timed_out or near_limit:
        source = _exit_code_note(result) if stopped and attempt is None else ""
        return RequeueDecision("requeue", f"stopped on request{source}; continues after a requeue", exclude=exclude)
    nodes = ", ".join(result.lost_nodes)
    return RequeueDecision("again", f"{nodes} is down" if nodes else f"failed: {_cause(attempt)}", exclude=exclude)


def count_trailing(attempts: Sequence[Attempt], outcomes: set[str]) -> int:
    """Number of last attempts in a row with one of these outcomes and without progress."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.outcome not in outcomes or has_progress(attempt):
            break
        count += 1
    return count


def has_progress(attempt: Attempt) -> bool:
    """Whether the attempt committed more tokens than it started from."""
    return bool(attempt.commits) and attempt.commits[-1].tokens > attempt.tokens_before


def bad_nodes(attempts: Sequence[Attempt]) -> set[str]:
    """Nodes to which at least `BAD_NODE_FAILURES` of the attempts attribute their failure."""
    blamed = [attempt.end.host for attempt in attempts if attempt.end and attempt.end.outcome == "failed"]
    return {host for host in blamed if host and blamed.count(host) >= BAD_NODE_FAILURES}


def _give_up(
    recipe: Recipe, history: History, attempts: Sequence[Attempt], result: LaunchResult, attempt: Attempt | None
) -> RequeueDecision | None:
    """The decision to leave if another launch would not help; else None.

    `attempts` are those of this job, `attempt` is the last one of the launch.
    """
    if not attempt and history.attempts_of(result.launch):
        return RequeueDecision("leave", f"{history.attempts[-1].claim.holder} trains the run now", exit_code=FAILED)
    if result.exit_code == USAGE_ERROR and not (attempt and attempt.end):
        why = f"wrong use{_exit_code_note(result)}; another launch would fail the same way"
        return RequeueDecision("leave", why, exit_code=USAGE_ERROR)
    failures = max(count_trailing(attempts, {"failed", "open"}), result.unclaimed)
    if not _stopped_on_request(result, attempt) and failures > recipe.machine.retries:
        return RequeueDecision("leave", _given_up(failures, "failures", attempt), exit_code=FAILED)
    fruitless = count_trailing(attempts, {"preempted", "failed", "open"})
    if fruitless >= recipe.machine.fruitless_attempts:
        return RequeueDecision("leave", _given_up(fruitless, "attempts", attempt), exit_code=FAILED)
    return None


def _stopped_on_request(result: LaunchResult, attempt: Attempt | None) -> bool:
    """Whether the launch ended because it was told to stop."""
    return attempt.outcome == "preempted" if attempt else result.exit_code == PREEMPTED


def _exit_code_note(result: LaunchResult) -> str:
    """A note for decisions that rest on the exit code."""
    return f" (by exit code {result.exit_code}: the journal has no outcome of this launch)"


def _cause(attempt: Attempt | None) -> str:
    """Why the attempt ended."""
    if attempt is None:
        return "the run was never claimed; see the lines above"
    return attempt.end.reason if attempt.end else "its ranks exited without recording an outcome"


def _given_up(count: int, what: str, attempt: Attempt | None) -> str:
    return f"given up after {count} {what} without progress; the last one: {_cause(attempt)}"
