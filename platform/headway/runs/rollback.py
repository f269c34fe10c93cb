"""A person's decision to go back: the run continues from an earlier checkpoint, and never from the later ones.

It has an attempt of its own, which trains nothing: a claim that fences whoever trained the run, the decision, and the
end. The decision is the one act by which the run goes back. A process that is killed before it has changed nothing;
after it, whoever trains the run continues from that checkpoint.
"""

import getpass
import os
import socket

from headway.errors import UsageError
from headway.runs.entries import Decided, Ended, Holder
from headway.runs.history import History
from headway.runs.run import Run


def roll_back(run: Run, tokens: int, holder: Holder, *, take_over: bool = False) -> History:
    """Record that `run` continues from its checkpoint at `tokens`, 0 for the beginning; returns its history.

    Records nothing if the run stands there already. Decisions about batches from `tokens` on end, too.

    Raises:
        UsageError: the run has no checkpoint there; lists those that it has.
        HeldError: a live process trains the run, and `take_over` is not set.
    """
    history = run.history()
    positions = [0, *(commit.tokens for commit in history.commits)]
    if tokens not in positions:
        raise UsageError(
            f"run {run.name} has no checkpoint at {tokens} tokens; "
            f"it can go back to: {', '.join(map(str, sorted(set(positions))))}"
        )
    if stands_at(history, tokens):
        return history
    data = history.attempts[-1].claim.data or ""
    attempt = run.claim(holder, run.recipe(), data, take_over=take_over).attempt
    reason = f"{person()} went back to {tokens:,} tokens"
    run.journal.append(
        Decided,
        attempt,
        action="rollback",
        reason=reason,
        skip_from=tokens,
        skip_to=tokens,
        restored=tokens,
        by=person(),
    )
    run.journal.append(Ended, attempt, outcome="preempted", reason=reason, tokens=tokens)
    return run.history()


def stands_at(history: History, tokens: int) -> bool:
    """Whether nothing in the history of a run comes after `tokens`."""
    return history.tokens == tokens and all(each.skip_from < tokens for each in history.bad_batches)


def person() -> str:
    """Who runs this process, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
