"""Options that several commands share, and how results are shown."""

import json
import os
import sys
from typing import Annotated, Any

import typer

from headway.store import Store, open_store

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change, e.g. train.tokens=1000000.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Run store: file:///folder. Default: HEADWAY_STORE, else ./runs.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")]


def chosen_store(url: str | None) -> Store:
    """The store of `--store`, else of `HEADWAY_STORE`, else `./runs`."""
    return open_store(url or os.environ.get("HEADWAY_STORE") or "./runs")


def show(text: str, *, quiet: bool = False) -> None:
    """Say something to a person, on standard error."""
    if not quiet:
        print(text, file=sys.stderr)  # noqa: T201 - this is the command line


def result(document: Any, text: str, *, as_json: bool) -> None:
    """Print a command's result on standard output: for a program, or for a person."""
    print(json.dumps(document, indent=1) if as_json else text)  # noqa: T201 - this is the command line
