"""Options that several commands share, and what they choose."""

import os
from typing import Annotated, Literal

import typer

from headway.errors import UsageError
from headway.objectstore import Store, open_store
from headway.runs import Committed, Run

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change, e.g. train.tokens=1000000.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A run, an array, or a run of an array.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Run store: s3://bucket/prefix or file:///folder. Default: HEADWAY_STORE, else ./runs.",
        show_default=False,
    ),
]
Tokens = Annotated[int | None, typer.Option(help="Which checkpoint. Default: the newest.")]
Data = Annotated[str | None, typer.Option(metavar="PATH", help="Folder of the built data. Default: the recipe's.")]
Alias = Annotated[str | None, typer.Option(metavar="ALIAS", help="Then point this alias at it, such as candidate.")]
Dtype = Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")]


def choose_store(url: str | None) -> Store:
    """The store of `--store`, else of `HEADWAY_STORE`, else `./runs`."""
    return open_store(url or os.environ.get("HEADWAY_STORE") or "./runs")


def choose_run(name: str, url: str | None) -> Run:
    """The run `name`.

    Raises:
        UsageError: there is none; names those that there are.
    """
    return Run.existing(choose_store(url), name)


def choose_commit(run: Run, tokens: int | None) -> Committed:
    """The commit at `tokens`, or the newest.

    Raises:
        UsageError: there is none; names those that there are.
    """
    commits = run.history().commits
    found = [c for c in commits if tokens is None or c.tokens == tokens]
    if not found:
        there = ", ".join(f"{c.tokens}" for c in commits) or "none"
        raise UsageError(
            f"run {run.name} has no checkpoint" + (f" at {tokens} tokens" if tokens else "") + f"; there: {there}"
        )
    return found[-1]
