"""`headway data`."""

from typing import TYPE_CHECKING

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet, RecipePath
from headway.cli.screen import bar, count, result, show, size, table

if TYPE_CHECKING:
    from headway.data.data_manifest import Provenance

COLUMNS = ("source", ">files", ">read", ">documents", ">tokens", ">held-out", ">held-out tokens", "left out")

app = typer.Typer(help="Turn text into token shards.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `build` a subcommand; typer would merge a single command into its group."""


@app.command()
def build(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build the token shards that a recipe trains on. A build that was killed continues when it is run again.

    Example: **headway data build jobs/recipes/quickstart.yaml**
    """
    from headway.data.build import build as build_shards

    plan = recipes.load(recipe, overrides or ())
    with bar(quiet=quiet) as progress:
        task = progress.add_task("building", total=None, note="")

        def show_progress(done: int, total: int, tokens: int) -> None:
            progress.update(task, completed=done, total=total, note=f"{tokens:,} tokens")

        manifest = build_shards(plan, progress=show_progress)
    rows = [
        [
            name,
            count(source.files),
            size(source.bytes),
            count(source.documents),
            count(source.tokens),
            count(source.held_out_documents),
            count(source.held_out_tokens),
            left_out(source) or "nothing",
        ]
        for name, source in manifest.sources.items()
    ]
    document = {"path": plan.data_path, "digest": manifest.digest, **manifest.model_dump(mode="json")}
    result(document, table(COLUMNS, rows), as_json=as_json)
    if not as_json:
        show(
            f"headway: {plan.data_path} is built: {len(manifest.shards)} shards, digest {manifest.digest}", quiet=quiet
        )


def left_out(source: "Provenance") -> str:
    """What was not read of a source, of how much, and why; nothing if all was read."""
    if source.input is None:
        return _reasons(source.dropped)
    counts = source.input
    parts = (("files", counts.files, counts.files_left_out), ("documents", counts.documents, counts.documents_left_out))
    return "; ".join(
        f"{sum(reasons.values()):,} of {total:,} {name}: {_reasons(reasons)}"
        for name, total, reasons in parts
        if reasons
    )


def _reasons(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} × {reason}" for reason, number in numbers.items())
