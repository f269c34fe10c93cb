"""Exports a checkpoint of a run to a Hugging Face directory: parameters, the data's tokenizer, and the origin."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

from headway.checkpoint.reader import PARAMETER_PREFIX, StoredCheckpoint
from headway.data import Dataset, open_data
from headway.errors import UsageError
from headway.export.directory import write
from headway.export.parameters import parameters
from headway.recipe import Recipe
from headway.registry import Origin
from headway.runs import Run


def write_checkpoint(
    run: Run,
    checkpoint: StoredCheckpoint,
    directory: Path,
    *,
    data: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    advance: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write a checkpoint of `run` to `directory` with `write`; returns the files.

    `data` is the folder of the run's data; default: the folder in the recipe. `advance` takes the bytes processed since
    its last call; they add up to `parameter_bytes`.

    Raises:
        UsageError: the directory is not empty, or the data are not those that the run was trained on.
        DamageError: the checkpoint is damaged.
    """
    recipe = run.recipe()
    dataset = _dataset(run, recipe, checkpoint, data)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in parameters(checkpoint):
            yield name, tensor
            advance(tensor.nbytes)

    return write(
        directory,
        recipe=recipe,
        tensors=tensors(),
        tokenizer=dataset.tokenizer_path,
        end_of_document=dataset.end_of_document,
        vocabulary=dataset.vocabulary,
        facts=_facts(checkpoint),
        dtype=dtype,
    )


def parameter_bytes(checkpoint: StoredCheckpoint) -> int:
    """Stored size of all parameters [bytes]."""
    tensors = checkpoint.manifest.tensors.items()
    return sum(chunk.length for name, t in tensors if name.startswith(PARAMETER_PREFIX) for chunk in t.chunks)


def origin(checkpoint: StoredCheckpoint) -> Origin:
    """The origin that a model exported from `checkpoint` records."""
    manifest, commit = checkpoint.manifest, checkpoint.commit
    return Origin(
        run=manifest.run,
        tokens=commit.tokens,
        checkpoint=commit.manifest,
        sha256=commit.sha256,
        recipe=manifest.recipe,
        data=manifest.data,
        headway=manifest.environment.headway,
    )


def _dataset(run: Run, recipe: Recipe, checkpoint: StoredCheckpoint, path: str | None) -> Dataset:
    """The data that the run was trained on; the export includes its tokenizer."""
    if path is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": path})})
    dataset = open_data(recipe)
    if dataset.digest != checkpoint.manifest.data:
        raise UsageError(
            f"run {run.name} was trained on data {checkpoint.manifest.data}, but {recipe.data_path} holds "
            f"{dataset.digest}; name the folder of the run's data with --data PATH"
        )
    return dataset


def _facts(checkpoint: StoredCheckpoint) -> dict[str, str | int | float]:
    """Facts about the checkpoint, for the model card."""
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
