"""`headway recipe`."""

from typing import Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet
from headway.cli.screen import result

app = typer.Typer(help="Look at recipes.", no_args_is_help=True)


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file.")],
    overrides: Overrides = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a recipe, and print it with every default written out.

    Example: **headway recipe check jobs/recipes/quickstart.yaml train.tokens=1000000**
    """
    plan = recipes.load(recipe, overrides or ())
    document = {"digest": recipes.digest(plan), "recipe": plan.model_dump(mode="json")}
    if as_json or not quiet:
        result(document, f"# digest {document['digest']}\n{recipes.to_yaml(plan)}", as_json=as_json)


@app.command()
def schema(*, as_json: Json = False, quiet: Quiet = False) -> None:
    """Print the JSON Schema of a recipe, for editors; with `--json` or without.

    Example: **headway recipe schema > recipe.schema.json**
    """
    del as_json, quiet  # a schema is one JSON document, and nothing else
    result(recipes.schema(), "", as_json=True)
