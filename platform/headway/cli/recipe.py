"""`headway recipe`."""

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet, RecipePath
from headway.cli.screen import result

app = typer.Typer(help="Check recipes and print their schema.", no_args_is_help=True)


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a recipe, and print it with all defaults.

    Example: **headway recipe check jobs/recipes/quickstart.yaml train.tokens=1000000**
    """
    plan = recipes.load(recipe, overrides or ())
    document = {"digest": recipes.digest(plan), "recipe": plan.model_dump(mode="json")}
    if as_json or not quiet:
        result(document, f"# digest {document['digest']}\n{recipes.to_yaml(plan)}", as_json=as_json)


@app.command()
def schema(*, as_json: Json = False, quiet: Quiet = False) -> None:
    """Print the JSON Schema of recipes, for editors. The output is JSON with or without `--json`.

    Example: **headway recipe schema > recipe.schema.json**
    """
    del as_json, quiet  # the output is always one JSON document
    result(recipes.schema(), "", as_json=True)
