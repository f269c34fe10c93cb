"""Arguments and options that several commands share, and the store, run or checkpoint that they select."""

import os
from typing import Annotated, Literal

import typer

from headway.errors import UsageError
from headway.objectstore import Store, open_store
from headway.runs import Committed, Run

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe: a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to override: train.tokens=1000000."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
NewRun = Annotated[str | None, typer.Option(help="Name of the run. Default: the recipe's name.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A run, an array, or a run of an array.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Run store: s3://bucket/prefix or file:///folder. Default: HEADWAY_STORE, else ./runs.",
        show_default=False,
    ),
]
Tokens = Annotated[int | None, typer.Option(help="Tokens of the checkpoint. Default: the newest checkpoint.")]
FromTokens = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Go back to the checkpoint at N tokens, 0 for the beginning, and drop those after it.",
    ),
]
Data = Annotated[str | None, typer.Option(metavar="PATH", help="Folder of the built data. Default: the recipe's.")]
Alias = Annotated[
    str | None, typer.Option(metavar="ALIAS", help="Alias to point at the new version, such as candidate.")
]
Dtype = Annotated[Literal["float32", "bfloat16"], typer.Option(help="Data type of the weights.")]
AllowUnfenced = Annotated[
    bool, typer.Option("--allow-unfenced", help="Accept a store without conditional (create-only) writes.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and problems.")]


def choose_store(url: str | None) -> Store:
    """The store of `--store`, else of `HEADWAY_STORE`, else `./runs`."""
    return open_store(url or os.environ.get("HEADWAY_STORE") or "./runs")


def choose_run(name: str, url: str | None) -> Run:
    """The run `name`.

    Raises:
        UsageError: there is no such run; lists the runs of the store.
    """
    return Run.open(choose_store(url), name)


def choose_commit(run: Run, tokens: int | None) -> Committed:
    """The commit at `tokens`, or the newest.

    Raises:
        UsageError: there is no such commit; lists the run's commits.
    """
    commits = run.history().commits
    matches = [commit for commit in commits if tokens is None or commit.tokens == tokens]
    if not matches:
        existing = ", ".join(f"{commit.tokens}" for commit in commits) or "none"
        position = f" at {tokens} tokens" if tokens else ""
        raise UsageError(f"run {run.name} has no checkpoint{position}; there are: {existing}")
    return matches[-1]
