"""What a job does when its ranks have left: leave, begin again here, or ask SLURM to queue it anew.

Decided from the run's journal and from what SLURM says of the job, never from an exit code alone: a stop that was
asked for and a crash leave the same one. Pure, so that every case can be tried without a cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headway.launch.scontrol import SlurmJob
from headway.recipe import Recipe
from headway.runs import Attempt, History

PREEMPTED, FAILED = 75, 1
"""Exit codes of a job."""
WRONG_USE = 2
"""Exit code of what would go wrong the same way again."""
BAD_NODE_FAILURES = 2
"""Failures on a machine after which a job asks not to be put there again."""
RECENT = 10
"""Attempts that count for that."""

Action = Literal["leave", "again", "requeue"]


@dataclass(frozen=True)
class RequeueDecision:
    """What is done, and why."""

    action: Action
    why: str
    exit_code: int = PREEMPTED
    exclude: tuple[str, ...] = ()
    """Machines that are to be avoided from now on."""


@dataclass(frozen=True)
class LaunchResult:
    """How a launch's ranks left."""

    launch: str
    exit_code: int
    """Of the first machine's launcher, or of srun."""
    lost: tuple[str, ...] = ()
    """Machines that SLURM says are down."""
    unclaimed: int = 0
    """Launches in a row, this one included, that never got as far as claiming the run."""
    signalled: bool = False
    """Whether the job itself was asked to stop."""


def decide(
    recipe: Recipe, history: History, left: LaunchResult, job: SlurmJob | None, *, restarts: int, time_is_up: bool
) -> RequeueDecision:
    """What to do after a launch of incarnation `restarts` of a job.

    `job` is what SLURM says of it now; `time_is_up`: its time limit is too near for going on here.
    """
    if history.done:
        return RequeueDecision("leave", "done", exit_code=0)
    if job is None or job.waits or job.restarts > restarts:
        return RequeueDecision("leave", "SLURM has queued the job anew by itself")
    timed_out = job.reason == "TimeLimit"
    if job.state != "RUNNING" and not timed_out:
        return RequeueDecision("leave", "the job was cancelled")
    attempts = [attempt for attempt in history.attempts if attempt.claim.holder.job == job.raw]
    last = history.attempts[-1] if history.attempts else None
    mine = last if last and last.claim.holder.launch == left.launch else None
    if hopeless := _hopeless(recipe, history, attempts, left, mine):
        return hopeless
    exclude = tuple(sorted({*left.lost, *bad_nodes(attempts[-RECENT:])}))
    asked = _stopped(left, mine) and (left.signalled or not left.lost)
    if asked or job.preempted or timed_out or time_is_up:
        return RequeueDecision("requeue", "it was asked to stop, and goes on later", exclude=exclude)
    why = f"{', '.join(left.lost)} is down" if left.lost else f"a failure: {_reason(mine)}"
    return RequeueDecision("again", why, exclude=exclude)


def _hopeless(
    recipe: Recipe, history: History, attempts: Sequence[Attempt], left: LaunchResult, mine: Attempt | None
) -> RequeueDecision | None:
    """Why going on would not help, if it would not; `attempts` are those of this job, `mine` the launch's last."""
    if not mine and history.launched(left.launch):
        return RequeueDecision("leave", f"{history.attempts[-1].claim.holder} trains the run now", exit_code=FAILED)
    if left.exit_code == WRONG_USE:
        return RequeueDecision("leave", "it would go wrong the same way again", exit_code=WRONG_USE)
    failures = max(trailing(attempts, {"failed", "open"}), left.unclaimed)
    if not _stopped(left, mine) and failures > recipe.machine.retries:
        return RequeueDecision("leave", _given_up(failures, "failures", mine), exit_code=FAILED)
    fruitless = trailing(attempts, {"preempted", "failed", "open"})
    if fruitless >= recipe.machine.fruitless_attempts:
        return RequeueDecision("leave", _given_up(fruitless, "attempts", mine), exit_code=FAILED)
    return None


def _stopped(left: LaunchResult, mine: Attempt | None) -> bool:
    """Whether the launch ended because it was asked to."""
    return mine.outcome == "preempted" if mine else left.exit_code == PREEMPTED


def trailing(attempts: Sequence[Attempt], outcomes: set[str]) -> int:
    """How many attempts at the end had one of these outcomes, without a token of progress among them."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.outcome not in outcomes or made_progress(attempt):
            break
        count += 1
    return count


def made_progress(attempt: Attempt) -> bool:
    """Whether an attempt committed anything beyond where it began."""
    return bool(attempt.commits) and attempt.commits[-1].tokens > attempt.before


def bad_nodes(attempts: Sequence[Attempt]) -> set[str]:
    """Machines that were to blame for so many failures."""
    blamed = [attempt.ended.host for attempt in attempts if attempt.ended and attempt.ended.outcome == "failed"]
    return {host for host in blamed if host and blamed.count(host) >= BAD_NODE_FAILURES}


def _reason(attempt: Attempt | None) -> str:
    if attempt is None:
        return "the run was never claimed; see the lines above"
    return attempt.ended.reason if attempt.ended else "its ranks left without a word"


def _given_up(count: int, what: str, attempt: Attempt | None) -> str:
    return f"given up after {count} {what} without progress, the last one: {_reason(attempt)}"
