"""`headway data`."""

from typing import Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet, result

app = typer.Typer(help="Turn text into token shards.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `build` a subcommand."""


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE")],
    overrides: Overrides = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build the token shards that a recipe trains on. Can be killed and run again.

    Example: **headway data build jobs/recipes/quickstart.yaml**
    """
    from headway import data

    plan = recipes.load(recipe, overrides or ())
    manifest = data.build(plan)
    result(manifest.model_dump(mode="json"), f"{plan.data_path}: {manifest.digest}", as_json=as_json)
