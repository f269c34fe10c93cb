"""Writes a Hugging Face directory, whole or not at all."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from headway.data.tokenizer_file import read_tokenizer
from headway.errors import DamageError, DataError, HeadwayError, UsageError
from headway.export.card import card
from headway.localfiles import sync
from headway.model import ARCHITECTURES, HuggingFaceFormat
from headway.recipe import Recipe
from headway.temporary_folder import temporary_folder

SHARD_BYTES = 5_000_000_000
"""Largest weights file [bytes]: 5 GB, as in transformers and on the Hugging Face hub."""


def write(
    directory: Path,
    *,
    recipe: Recipe,
    tensors: Iterable[tuple[str, torch.Tensor]],
    tokenizer: Path,
    end_of_document: int,
    vocabulary: int,
    facts: Mapping[str, str | int | float],
    dtype: Literal["float32", "bfloat16"] = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write model, tokenizer and card to `directory`, for transformers and vLLM; returns the files.

    `tensors` yields all parameters of the model, whole, by Headway's names, in any order. Memory holds one weights
    file (`shard_bytes`) and one tensor at a time. `tokenizer` is a tokenizer.json. The files are written to a folder
    `<name>.partial-<random>` beside `directory`, which is then renamed; a killed export leaves only that folder.

    Raises:
        UsageError: `directory` is not empty, or the model's architecture has no format in Hugging Face.
        DataError: the tokenizer does not fit the model.
        DamageError: a parameter is missing, unknown or of the wrong shape.
    """
    target = directory.resolve()
    refuse_occupied(target)
    end = _end_token(tokenizer, end_of_document, vocabulary)
    hub = huggingface_format(recipe)
    settings = hub.configuration(recipe.model, vocabulary, recipe.data.block_tokens, end_of_document, dtype)
    with replacing_folder(target) as folder:
        checked = _checked(tensors, recipe, vocabulary, getattr(torch, dtype))
        _write_weights(folder, ((hub.name(name), tensor) for name, tensor in checked), shard_bytes)
        _write_json(folder / "config.json", settings)
        _write_json(
            folder / "generation_config.json",
            {"bos_token_id": end_of_document, "eos_token_id": end_of_document, "pad_token_id": end_of_document},
        )
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
        _write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": end,
                "eos_token": end,
                "pad_token": end,
                "model_max_length": recipe.data.block_tokens,
                "clean_up_tokenization_spaces": False,
            },
        )
        (folder / "README.md").write_text(card(recipe, vocabulary, facts, target), encoding="utf-8")
    return sorted(target.iterdir())


def huggingface_format(recipe: Recipe) -> HuggingFaceFormat[Any]:
    """The format in which transformers and vLLM load models of the recipe's architecture.

    Raises:
        UsageError: there is none.
    """
    hub = ARCHITECTURES[recipe.model.kind].huggingface
    if hub is None:
        raise UsageError(
            f"a model of model.kind: {recipe.model.kind} cannot be exported: "
            f"its architecture has no format that transformers and vLLM load"
        )
    return hub


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, renamed to it when the block succeeds, and deleted on an error.

    Raises:
        HeadwayError: it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(parent=target.parent) as parent:
            folder = parent / target.name
            folder.mkdir()
            yield folder
            for file in folder.iterdir():
                sync(file)  # a power cut after the rename must not leave empty files
            sync(folder)
            refuse_occupied(target)
            folder.replace(target)
            sync(target.parent)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise HeadwayError(f"{target}: cannot be written: {reason}") from error


def refuse_occupied(target: Path) -> None:
    """Refuse a directory that exists and is not empty.

    Raises:
        UsageError: it holds something, or is a file.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        problem = "is not empty" if target.is_dir() else "is a file"
        raise UsageError(f"{target} {problem}; name a new directory, or remove this one")


def _end_token(tokenizer: Path, end_of_document: int, vocabulary: int) -> str:
    """The text of the token that ends a document."""
    tokens = read_tokenizer(tokenizer)
    if tokens.largest >= vocabulary:
        raise DataError(
            f"{tokenizer} has tokens up to {tokens.largest:,}, but the model's vocabulary ends at {vocabulary - 1:,}; "
            "pass the tokenizer the run was trained with"
        )
    end = tokens.added(end_of_document)
    if end is None:
        raise DataError(
            f"{tokenizer} has no special token {end_of_document}, which ends each document of the run; "
            "pass the tokenizer the run was trained with"
        )
    return end


def _checked(
    tensors: Iterable[tuple[str, torch.Tensor]], recipe: Recipe, vocabulary: int, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in `dtype`. Checks that each parameter occurs exactly once."""
    model = ARCHITECTURES[recipe.model.kind].on_meta(recipe.model, vocabulary)
    missing = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, tensor in tensors:
        if name not in missing:
            raise DamageError(f"{name} is not a parameter of the recipe's model, or occurs twice; nothing was exported")
        shape = missing.pop(name)
        if tuple(tensor.shape) != shape:
            raise DamageError(
                f"{name} has shape {tuple(tensor.shape)}, but {shape} in the recipe's model; nothing was exported"
            )
        yield name, tensor.detach().to("cpu", dtype).contiguous()
    if missing:
        raise DamageError(f"the checkpoint lacks {', '.join(sorted(missing))}; nothing was exported")


def _write_weights(folder: Path, tensors: Iterator[tuple[str, torch.Tensor]], shard_bytes: int) -> None:
    """Write model.safetensors, or several model-<i>-of-<n>.safetensors and their index."""
    shards: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    total = 0

    def flush() -> None:
        file = folder / f"shard-{len(shards)}"
        save_file(pending, file, metadata={"format": "pt"})
        file.chmod(folder.stat().st_mode & 0o666)  # safetensors makes its files private
        shards.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and sum(other.nbytes for other in pending.values()) + tensor.nbytes > shard_bytes:
            flush()
        pending[name] = tensor
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{index}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
