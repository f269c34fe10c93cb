"""Commands that look at runs."""

from typing import Annotated

import typer

from headway.cli.options import Json, RunName, StoreUrl, chosen_store, result
from headway.errors import UsageError
from headway.store import Committed, Run

Tokens = Annotated[int | None, typer.Option(help="Which checkpoint. Default: the newest.")]


def chosen_commit(run: Run, tokens: int | None) -> Committed:
    """The commit at `tokens`, or the newest."""
    commits = run.history().commits
    found = [c for c in commits if tokens is None or c.tokens == tokens]
    if not found:
        there = ", ".join(f"{c.tokens}" for c in commits) or "none"
        raise UsageError(
            f"run {run.name} has no checkpoint" + (f" at {tokens} tokens" if tokens else "") + f"; there: {there}"
        )
    return found[-1]


def fingerprint(run: RunName, tokens: Tokens = None, store: StoreUrl = None, *, as_json: Json = False) -> None:
    """Print the SHA-256 of a checkpoint's parameters: two runs are the same run when these are equal.

    Example: **headway fingerprint quickstart**
    """
    from headway.checkpoint.stored import StoredCheckpoint

    found = Run.existing(chosen_store(store), run)
    commit = chosen_commit(found, tokens)
    digest = StoredCheckpoint(found.store, commit).fingerprint()
    result({"run": run, "tokens": commit.tokens, "fingerprint": digest}, digest, as_json=as_json)
