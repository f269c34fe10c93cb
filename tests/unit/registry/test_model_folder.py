"""A model's folder that somebody else wrote leads no library out of it, and to no code."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.registry.conftest import safetensors

from headway.errors import UsageError
from headway.registry.files import model_files
from headway.registry.model_folder import MAX_CONFIG_BYTES, check_model_folder

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
Change = Callable[[Path], object]


@pytest.fixture
def sharded(folder: Path) -> Path:
    """A model's folder with an index of two files of weights, beside a file that is not its own."""
    secret = folder.parent / "other"
    secret.mkdir()
    (secret / "secret.safetensors").write_bytes(safetensors(b"secret"))
    (folder / "model.safetensors").unlink()
    for name in SHARDS:
        (folder / name).write_bytes(safetensors(name.encode()))
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}))
    return folder


def configured(**values: object) -> Change:
    """Change a folder's configuration."""
    return lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "llama", **values}))


def written(name: str, text: str) -> Change:
    """Write a file of a folder."""
    return lambda folder: (folder / name).write_text(text)


def linked(name: str, target: str) -> Change:
    """Replace a file by a link."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def indexed(name: object) -> Change:
    """Let the index name a file."""
    return lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": name}}))


CHANGES: dict[str, tuple[Change, str]] = {
    "code": (configured(auto_map={"AutoConfig": "code.Config"}), "auto_map names code to run"),
    "code of another model": (configured(auto_map="someone/model--code.Config"), "auto_map names code to run"),
    "code deep inside": (configured(text_config=[{"a": {"auto_map": {"A": "b.C"}}}]), "auto_map names code to run"),
    "code of a tokenizer": (written("tokenizer_config.json", '{"auto_map": {"A": "b.C"}}'), "auto_map names code"),
    "an adapter": (written("adapter_config.json", '{"base_model_name_or_path": "/"}'), "names another model to load"),
    "weights by name": (configured(transformers_weights="../other/secret.safetensors"), "names files to load"),
    "a list": (written("config.json", "[1]"), "is a JSON list, not an object"),
    "no JSON": (written("config.json", "{"), "is not JSON"),
    "no text": (lambda folder: (folder / "config.json").write_bytes(bytes(1000)), "is not JSON"),
    "deep": (written("config.json", '{"a":' + "[" * 200_000), "is not JSON"),
    "deep beside it": (written("generation_config.json", "[" * 200_000), "is not JSON"),
    "long": (written("config.json", " " * MAX_CONFIG_BYTES + "{}"), "is longer than"),
    "many layers": (configured(num_hidden_layers=10**8), "num_hidden_layers is 100,000,000"),
    "fewer layers than none": (configured(n_layer=-1), "n_layer is -1"),
    "many experts": (configured(text_config={"n_routed_experts": 10**9}), "n_routed_experts is 1,000,000,000"),
    "no index": (written(INDEX, "{}"), "has no weight_map"),
    "an index of a list": (written(INDEX, '{"weight_map": []}'), "has no weight_map"),
    "a way up": (indexed("../other/secret.safetensors"), "which is not a file of weights in"),
    "an absolute path": (indexed("/secret.safetensors"), "which is not a file of weights in"),
    "a missing file": (indexed("model-3.safetensors"), "which is not a file of weights in"),
    "a file that is no weights": (indexed("tokenizer.json"), "which is not a file of weights in"),
    "no name": (indexed(["a"]), "which is not a file of weights in"),
    "a link out": (linked(SHARDS[0], "../other/secret.safetensors"), "outside of the model's folder"),
    "a link to text": (linked("tokenizer.json", "/etc/passwd"), "outside of the model's folder"),
    "a link to nowhere": (linked("tokenizer.json", "nowhere"), "cannot be read"),
    "a link to itself": (linked("tokenizer.json", "tokenizer.json"), "cannot be read"),
    "a link to a folder": (linked("tokenizer.json", ".."), "is not a file"),
    "a link to a device": (linked("tokenizer.json", "/dev/zero"), "is not a file"),
    "weights twice": (linked(SHARDS[0], SHARDS[1]), "are one file"),
    "a pipe": (lambda folder: os.mkfifo(folder / "merges.txt"), "is not a file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_leads_out_of_the_folder_or_asks_for_too_much_is_refused(sharded: Path, change: str) -> None:
    """By name, before any library sees the folder; so no version is made of it either."""
    check_model_folder(sharded)
    model_files(sharded)
    apply, message = CHANGES[change]
    apply(sharded)
    with pytest.raises(UsageError, match=message):
        check_model_folder(sharded)
    with pytest.raises(UsageError):
        model_files(sharded)


def test_links_of_hugging_faces_cache_are_followed(sharded: Path, tmp_path: Path) -> None:
    """Its snapshots are links to blobs two folders up."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "1f", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in sharded.iterdir():
        path.rename(blobs / f"blob-of-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-of-{path.name}")
    assert check_model_folder(snapshot) == {"model_type": "llama"}
    (tmp_path / "link").symlink_to(snapshot)
    assert check_model_folder(tmp_path / "link") == {"model_type": "llama"}
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to("../../../other/secret.safetensors")
    with pytest.raises(UsageError, match="outside of the model's folder"):
        check_model_folder(snapshot)


def test_usual_configurations_pass(folder: Path) -> None:
    """Nothing but the forbidden is looked at: subfolders, long contexts, large vocabularies."""
    (folder / "original").mkdir()
    configured(vocab_size=300_000, max_position_embeddings=10_000_000, num_hidden_layers=126, auto_map=None)(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert check_model_folder(folder)["vocab_size"] == 300_000
