"""The command line: the only part of Headway that prints or leaves. Each module holds the commands of one subject."""

import sys

import typer

from headway.cli import data, recipe, runs, train
from headway.errors import HeadwayError

app = typer.Typer(
    help="Pretrain language models without ever losing progress.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(train.train)
app.add_typer(data.app, name="data")
app.add_typer(recipe.app, name="recipe")
for command in (runs.fingerprint,):
    app.command()(command)


def main() -> None:
    """Run `headway`; an expected error is one message and its exit code."""
    try:
        app()
    except HeadwayError as error:
        print(f"headway: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        sys.exit(error.exit_code)
