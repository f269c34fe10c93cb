"""`headway export`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headway.cli.options import Json, Quiet, RunName, StoreUrl, Tokens, chosen_commit, chosen_run
from headway.cli.screen import bar, result, size
from headway.errors import UsageError
from headway.recipe import Recipe
from headway.store import Run

if TYPE_CHECKING:
    import torch

    from headway.checkpoint.stored import StoredCheckpoint
    from headway.data import Dataset

SAMPLE_TOKENS = 64
"""Length of a `--sample`."""


def export(
    run: RunName,
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Directory to make; an empty or a new one.")],
    tokens: Tokens = None,
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Folder of the built data. Default: the recipe's.")
    ] = None,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the weights.")] = "float32",
    sample: Annotated[
        str | None, typer.Option(metavar="TEXT", help=f"Then go on with this text for {SAMPLE_TOKENS} tokens.")
    ] = None,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a Hugging Face directory, which transformers and vLLM load as it is.

    Every byte of the checkpoint is verified on the way. The directory appears whole or not at all.

    Example: **headway export quickstart --to model --sample 'def main('**
    """
    found = chosen_run(run, store)
    commit = chosen_commit(found, tokens)

    from headway.checkpoint.stored import StoredCheckpoint
    from headway.export import continuation, write

    checkpoint = StoredCheckpoint(found.store, commit)
    recipe = found.recipe()
    dataset = _dataset(found, recipe, checkpoint, data)
    with bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=_bytes(checkpoint), note="")

        def tensors() -> Iterator[tuple[str, "torch.Tensor"]]:
            from headway.export.parameters import parameters

            for name, tensor in parameters(checkpoint):
                yield name, tensor
                progress.advance(task, tensor.nbytes)

        files = write(
            to,
            recipe=recipe,
            tensors=tensors(),
            tokenizer=dataset.tokenizer_path,
            end_of_document=dataset.end_of_document,
            vocabulary=dataset.vocabulary,
            facts=_facts(checkpoint),
            dtype=dtype,
        )
    told = continuation(to, sample, SAMPLE_TOKENS) if sample is not None else None
    document: dict[str, Any] = {
        "run": run,
        "tokens": commit.tokens,
        "directory": str(to),
        "files": {file.name: file.stat().st_size for file in files},
        "sample": told,
    }
    text = f"{to}: {len(files)} files, {size(sum(document['files'].values()))}, from {commit.tokens:,} tokens of {run}"
    result(document, text if told is None else f"{text}\n\n{sample}{told}", as_json=as_json)


def _dataset(run: Run, recipe: Recipe, checkpoint: "StoredCheckpoint", path: str | None) -> "Dataset":
    """The data that the run was trained on: its tokenizer goes with the model."""
    from headway.data import open_data

    if path is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": path})})
    dataset = open_data(recipe)
    if dataset.digest != checkpoint.manifest.data:
        raise UsageError(
            f"run {run.name} was trained on other data than {recipe.data_path} holds "
            f"({checkpoint.manifest.data} and {dataset.digest}); name the folder of its data with --data PATH"
        )
    return dataset


def _bytes(checkpoint: "StoredCheckpoint") -> int:
    """Of all parameters, as they are stored."""
    from headway.checkpoint.stored import PARAMETERS

    tensors = checkpoint.manifest.tensors.items()
    return sum(chunk.length for name, t in tensors if name.startswith(PARAMETERS) for chunk in t.chunks)


def _facts(checkpoint: "StoredCheckpoint") -> dict[str, str | int | float]:
    """What the model card says of where the model came from."""
    manifest, commit = checkpoint.manifest, checkpoint.commit
    held_out = manifest.progress.held_out
    return {
        "run": manifest.run,
        "tokens trained on": commit.tokens,
        "optimizer steps": manifest.progress.updates,
        **({} if held_out is None else {"held-out loss [nats per token]": round(held_out, 4)}),
        "trained on": f"{manifest.world_size} × {manifest.environment.device}, {manifest.environment.precision}",
        "recipe digest": manifest.recipe,
        "data digest": manifest.data,
        "manifest SHA-256": commit.sha256,
        "headway": manifest.environment.headway,
    }
