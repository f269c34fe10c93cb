"""The outcome of a launch: read from the journal, and recorded there if the ranks could not do so."""

import dataclasses
import logging
from dataclasses import dataclass

from headway import errors
from headway.errors import FencedError, HeadwayError
from headway.runs import Attempt, Ended, Run
from headway.stop_signals import PREEMPTED

EXIT_CODES = {"done": 0, "preempted": PREEMPTED, "failed": 1}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a launch."""

    outcome: str
    """`done`, `preempted` or `failed`."""
    reason: str
    tokens: int
    attempt: int | None
    exit_code: int
    head_lost: bool = False
    """Whether the head node is lost, and with it the process that would requeue the run."""

    def as_json(self) -> dict[str, object]:
        """The fields for `--json`, where `head_lost` has the key `alone`."""
        fields = dataclasses.asdict(self)
        return {"alone" if key == "head_lost" else key: value for key, value in fields.items()}


@dataclass(frozen=True)
class Failure:
    """What went wrong on a node."""

    kind: str
    """Name of the error class; empty if there was no Python error, as for a killed process."""
    message: str
    host: str | None = None
    """Host that is to blame, if any."""
    time: float = 0.0
    """When it was noticed [s since 1970]."""

    def error(self) -> HeadwayError:
        """The error that a rank raised, revived; a HeadwayError if it was no error of ours."""
        return errors.revive(self.kind, self.message)


def conclude(
    run: Run, launch_id: str, failure: Failure | None, *, stop_requested: bool, writes: bool = True
) -> Outcome:
    """The outcome of a launch according to the journal.

    If the last attempt has recorded no end, this records one, provided that this process `writes` to the journal.
    """
    history = run.history()
    attempts = history.attempts_of(launch_id)
    if not attempts:
        return _unclaimed_outcome(failure, history.tokens, stop_requested=stop_requested)
    last = attempts[-1]
    if last.end:
        return Outcome(last.outcome, last.end.reason, last.end.tokens, last.number, EXIT_CODES[last.outcome])
    if stop_requested and failure is None:  # stopped between two attempts, or while the ranks exited
        return _record_end(run, last, "preempted", "asked to stop", history.tokens, writes=writes)
    failure = failure or Failure("", "its ranks exited without recording an outcome")
    error = failure.error()
    if isinstance(error, FencedError):
        return Outcome("failed", failure.message, history.tokens, last.number, error.exit_code)
    reason = failure.message or failure.kind
    outcome = _record_end(run, last, "failed", reason, history.tokens, host=failure.host, writes=writes)
    return dataclasses.replace(outcome, exit_code=error.exit_code)


def _unclaimed_outcome(failure: Failure | None, tokens: int, *, stop_requested: bool) -> Outcome:
    """The outcome of a launch that never claimed the run."""
    if stop_requested or failure is None:
        return Outcome("preempted", "asked to stop before the run was claimed", tokens, None, PREEMPTED)
    return Outcome("failed", failure.message or failure.kind, tokens, None, failure.error().exit_code)


def _record_end(
    run: Run, attempt: Attempt, outcome: str, reason: str, tokens: int, *, host: str | None = None, writes: bool
) -> Outcome:
    """Record the end of an attempt, unless the attempt recorded it meanwhile, lost the run, or the store fails."""
    try:
        if writes:
            run.journal.append(Ended, attempt.number, outcome=outcome, reason=reason, tokens=tokens, host=host)
    except FencedError:
        if end := next(each for each in run.history().attempts if each.number == attempt.number).end:
            return Outcome(end.outcome, end.reason, end.tokens, attempt.number, EXIT_CODES[end.outcome])
    except HeadwayError as error:
        logging.getLogger("headway").warning("cannot record the outcome in the journal: %s", error)
    return Outcome(outcome, reason, tokens, attempt.number, EXIT_CODES[outcome])
