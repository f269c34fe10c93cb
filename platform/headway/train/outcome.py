"""How a launch went: read from the journal, and said there if nobody else could."""

import dataclasses
import logging
from dataclasses import dataclass

from headway import errors
from headway.errors import FencedError, HeadwayError
from headway.runs import Attempt, Ended, Run

EXIT_CODES = {"done": 0, "preempted": 75, "failed": 1}


@dataclass(frozen=True)
class Outcome:
    """How a launch went."""

    outcome: str
    """`done`, `preempted` or `failed`."""
    reason: str
    tokens: int
    attempt: int | None
    exit_code: int
    alone: bool = False
    """Whether the first machine is gone, and with it whoever would begin the run again."""


@dataclass(frozen=True)
class Failure:
    """What went wrong on a machine."""

    kind: str
    """Name of the error's class; empty if there was no error, as of a process that was killed."""
    message: str
    host: str | None = None
    """The machine that is to blame, if one is."""
    time: float = 0.0
    """When it was noticed [s since 1970]."""


def conclude(run: Run, launch_id: str, failure: Failure | None, *, stopped: bool, says: bool = True) -> Outcome:
    """How the launch went, by the journal; says there that it failed, if it `says` and nobody else could."""
    history = run.history()
    mine = history.launched(launch_id)
    if not mine:
        return _unclaimed(failure, history.tokens, stopped=stopped)
    last = mine[-1]
    if last.ended:
        return Outcome(last.outcome, last.ended.reason, last.ended.tokens, last.number, EXIT_CODES[last.outcome])
    if stopped and failure is None:  # asked to stop between two attempts, or on the way out
        return _say_ended(run, last, "preempted", "asked to stop", history.tokens, says=says)
    failure = failure or Failure("", "its ranks left without a word")
    problem = getattr(errors, failure.kind, HeadwayError)
    if issubclass(problem, FencedError):
        return Outcome("failed", failure.message, history.tokens, last.number, problem.exit_code)
    reason = failure.message or failure.kind
    ended = _say_ended(run, last, "failed", reason, history.tokens, host=failure.host, says=says)
    return dataclasses.replace(ended, exit_code=problem.exit_code)


def _unclaimed(failure: Failure | None, tokens: int, *, stopped: bool) -> Outcome:
    """How a launch went that never claimed the run."""
    if stopped or failure is None:
        return Outcome("preempted", "asked to stop before the run was claimed", tokens, None, 75)
    problem = getattr(errors, failure.kind, HeadwayError)
    return Outcome("failed", failure.message or failure.kind, tokens, None, problem.exit_code)


def _say_ended(
    run: Run, attempt: Attempt, outcome: str, reason: str, tokens: int, *, host: str | None = None, says: bool
) -> Outcome:
    """Write how an attempt ended, unless it has said so itself, has lost the run, or the store is what failed."""
    try:
        if says:
            run.journal.append(Ended, attempt.number, outcome=outcome, reason=reason, tokens=tokens, host=host)
    except FencedError:
        if said := next(each for each in run.history().attempts if each.number == attempt.number).ended:
            return Outcome(said.outcome, said.reason, said.tokens, attempt.number, EXIT_CODES[said.outcome])
    except HeadwayError as error:
        logging.getLogger("headway").warning("the journal could not be told: %s", error)
    return Outcome(outcome, reason, tokens, attempt.number, EXIT_CODES[outcome])
