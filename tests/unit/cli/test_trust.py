"""Verification, fingerprints and export: a run holds what was written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.cli.conftest import Answer, Headway
from tests.unit.cli.story import BATCH, BUDGET, MODEL, Story, Tensors, plan, trained

from headway.checkpoint.verify import verify
from headway.cli.screen import WIDE
from headway.model import ARCHITECTURES, initialize
from headway.model.llama import huggingface
from headway.objectstore.folder import FolderStore
from headway.recipe import Recipe
from headway.runs import Run, keys


def flip(store: FolderStore, key: str, at: int = -1) -> None:
    """Changes one byte of an object."""
    data = bytearray(store.get(key))
    data[at] ^= 1
    store.put(key, [data])


def test_a_sound_run_is_verified(headway: Headway, store: FolderStore) -> None:
    """Without damage the command exits with 0 and prints what it verified."""
    trained(Story(store, "tale"))
    answer = headway("verify", "tale", "--json")
    assert answer.code == 0
    assert answer.document["findings"] == []
    assert answer.document["sound"] == [2000, 4000, 7000, 10000]
    assert "sound: 12 journal entries, the recipe, 4 checkpoints" in headway("verify", "tale").out


def test_a_flipped_byte_is_found_and_named(headway: Headway, store: FolderStore) -> None:
    """A changed byte exits with 1, and names the shard, the tensor and the fallback checkpoint."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(105, 1000)
    flip(store, story.commit(106, 2000))
    answer = headway("verify", "tale")
    assert answer.code == 1
    first, last = answer.out.splitlines()
    assert "checkpoint at 2,000 tokens" in first
    assert "00000-of-00001.safetensors" in first
    assert "tensor model.weight" in first
    assert last == "1 finding; train falls back to the checkpoint at 1,000 tokens"
    document = headway("verify", "tale", "--json").document
    assert document["findings"] == [first]
    assert document["sound"] == [1000]


def test_nothing_sound_and_old_damage_are_told_apart(headway: Headway, store: FolderStore) -> None:
    """With an old damaged checkpoint training continues from the newest; without a sound one it starts again."""
    story = Story(store, "tale")
    story.claim(100)
    old, new = story.commit(105, 1000), story.commit(106, 2000)
    flip(store, old)
    assert "train continues from the checkpoint at 2,000 tokens" in headway("verify", "tale").out
    store.delete(new)
    assert "findings; train falls back to the beginning" in headway("verify", "tale").out


def test_damage_to_the_journal_is_found(headway: Headway, store: FolderStore) -> None:
    """A changed journal entry is a finding."""
    trained(Story(store, "tale"))
    flip(store, keys.journal_entry("tale", 3), at=10)
    answer = headway("verify", "tale")
    assert answer.code == 1
    assert "journal entry 3" in answer.out


def test_a_checkpoint_given_up_meanwhile_is_no_damage(store: FolderStore) -> None:
    """A checkpoint that is pruned during verification is not reported as damage."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(105, 1000)
    story.commit(106, 2000)
    reading = verify(Run(store, "tale"))
    assert isinstance(next(reading), int)
    story.prune(107, 2000)
    assert [finding for finding in reading if not isinstance(finding, int)] == []


def test_equal_parameters_have_equal_fingerprints(headway: Headway, store: FolderStore) -> None:
    """A fingerprint covers only the parameters of the selected checkpoint; an unknown checkpoint exits with 2."""
    for run, moment in (("a", b"x" * 16), ("b", b"y" * 16)):
        story = Story(store, run)
        story.claim(100)
        parameters = {"model.weight": ("float32", (4,), bytes(16))}
        story.commit(101, 1000, {**parameters, "optimizer.weight": ("float32", (4,), moment)})
        story.commit(102, 2000, {"model.weight": ("float32", (4,), moment)})
    first, second = (headway("fingerprint", run, "--tokens", "1000").out for run in "ab")
    assert first == second
    assert headway("fingerprint", "a").out != headway("fingerprint", "b").out
    answer = headway("fingerprint", "a", "--tokens", "1500")
    assert (answer.code, "1000, 2000" in answer.err) == (2, True)


@pytest.fixture
def tale(store: FolderStore, tmp_path: Path, headway: Headway) -> Callable[[], tuple[Recipe, Answer]]:
    """Builds small data; returns its recipe and the build's output."""

    def build() -> tuple[Recipe, Answer]:
        lines = "".join(json.dumps({"text": f"story {n}: " + "so it goes on and on. " * 20}) + "\n" for n in range(200))
        (tmp_path / "in.jsonl").write_text(lines + "not json\n")
        data = {
            "path": str(tmp_path / "built"),
            "sources": {"tales": {"path": str(tmp_path / "in.jsonl")}},
            "tokenizer": {"vocabulary": 300},
            "block_tokens": 100,
            "held_out_share": 0.1,
        }
        train = {"tokens": BUDGET, "batch_tokens": BATCH, "micro_batch_tokens": BATCH}
        recipe = {"name": "tale", "data": data, "model": MODEL, "train": train}
        (tmp_path / "tale.yaml").write_text(json.dumps(recipe))
        return plan(data=data), headway("data", "build", "tale.yaml", "--json")

    assert store.url
    return build


def test_building_data_tells_what_went_in_and_what_was_left_out(
    headway: Headway, tale: Callable[[], tuple[Recipe, Answer]]
) -> None:
    """The document has path, digest and sources; the table lists the sources and what was dropped."""
    recipe, built = tale()
    assert built.code == 0
    assert built.document["path"] == recipe.data_path
    assert built.document["sources"]["tales"]["documents"] + built.document["sources"]["tales"]["held_out_documents"]
    shown = headway("data", "build", "tale.yaml")
    header, row = shown.out.splitlines()
    assert header.split()[:4] == ["source", "files", "read", "documents"]
    assert row.split()[:2] == ["tales", "1"]
    assert row.endswith("1 of 201 documents: 1 × not JSON")
    counts = built.document["sources"]["tales"]["input"]
    assert (counts["files"], counts["files_left_out"]) == (1, {})
    assert (counts["documents"], counts["documents_left_out"]) == (201, {"not JSON": 1})
    assert counts["text_bytes"] == counts["text_bytes_kept"] > 0
    assert built.document["digest"] in shown.err
    assert headway("data", "build", "tale.yaml", "--quiet").err == ""
    assert len(row) < WIDE


def parameters(recipe: Recipe, vocabulary: int) -> dict[str, torch.Tensor]:
    """Initial parameters of a recipe's model."""
    model = ARCHITECTURES[recipe.model.kind].build(recipe.model, vocabulary, recipe.train.loss_chunk_tokens)
    initialize(model, 7)
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def stored(tensors: dict[str, torch.Tensor]) -> Tensors:
    """Parameters in the format of a checkpoint."""
    return {
        f"model.{name}": ("float32", tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in tensors.items()
    }


def test_an_export_holds_the_parameters_of_the_checkpoint(
    headway: Headway, store: FolderStore, tale: Callable[[], tuple[Recipe, Answer]], tmp_path: Path
) -> None:
    """The directory has the checkpoint's bits under Hugging Face names and its origin, and the sample continues.

    Another run's data and a directory that is not empty are rejected.
    """
    recipe, built = tale()
    document: Any = built.document
    story = Story(store, "tale", recipe, data=document["digest"])
    tensors = parameters(recipe, document["vocabulary"])
    story.claim(100)
    story.commit(105, 3000, stored(tensors))

    document = headway("export", "tale", "--to", "model", "--sample", "so it", "--json").document
    assert (document["tokens"], document["directory"]) == (3000, "model")
    assert isinstance(document["sample"], str)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert weights.keys() == {huggingface.name(name) for name in tensors}
    assert all(torch.equal(weights[huggingface.name(name)], tensor) for name, tensor in tensors.items())
    assert "| tokens trained on | 3,000 |" in (tmp_path / "model" / "README.md").read_text()

    assert headway("export", "tale", "--to", "model").code == 2
    other = Story(store, "other", recipe, data="0" * 64)
    other.claim(100)
    other.commit(105, 3000, stored(tensors))
    answer = headway("export", "other", "--to", "elsewhere")
    assert (answer.code, "--data PATH" in answer.err) == (2, True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_checkpoint_is_not_exported(
    headway: Headway, store: FolderStore, tale: Callable[[], tuple[Recipe, Answer]], tmp_path: Path
) -> None:
    """A flipped byte in a parameter exits with 1 and names its shard, and no directory appears."""
    recipe, built = tale()
    story = Story(store, "tale", recipe, data=built.document["digest"])
    story.claim(100)
    flip(store, story.commit(105, 3000, stored(parameters(recipe, built.document["vocabulary"]))))
    answer = headway("export", "tale", "--to", "model")
    assert (answer.code, "00000-of-00001.safetensors" in answer.err) == (1, True)
    assert not (tmp_path / "model").exists()
    moved = tmp_path / "moved"
    (tmp_path / "built").rename(moved)
    assert headway("export", "tale", "--to", "model").code == 2
    assert headway("export", "tale", "--to", "model", "--data", str(moved)).code == 1
