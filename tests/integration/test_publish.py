"""From a run to a model that transformers loads: published, listed, fetched, and refused when it is damaged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from headway.checkpoint.run_copy import copy_run
from headway.errors import DamageError
from headway.objectstore import Store
from headway.registry import RegisteredModel, Version, find
from headway.runs import keys
from tests.integration.training import Place


def headway(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command over a store."""
    command = [sys.executable, "-m", "headway.cli", *words, "--store", store.url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def published(store: Store, *words: str) -> Any:
    """What `headway publish` answers."""
    done = headway(store, "publish", "run", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flip(store: Store, version: Version) -> None:
    """Flip one bit in the middle of a version's weights."""
    key = f"{keys.folder(version.manifest)}model.safetensors"
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, [data])


@pytest.fixture(scope="module")
def trained(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that was trained to its end."""
    place = Place(built / "tiny.yaml", tmp_path_factory.mktemp("trained"))
    assert place.train("run").process.returncode == 0
    return place


@pytest.mark.slow
def test_a_run_becomes_a_model(trained: Place) -> None:
    """Two checkpoints become two versions, each with its provenance and the run's bits; the same again is no third."""
    store, history = trained.objects, trained.history("run")
    first, last = history.commits[0], history.commits[-1]
    chosen = ("--as", "coder", "--tokens", str(first.tokens), "--dtype", "float32", "--alias", "stable")
    older = published(store, *chosen)
    assert (older["version"], older["tokens"], older["aliases"], older["new"]) == (1, first.tokens, ["stable"], True)
    again = published(store, *chosen)
    assert (again["version"], again["new"], again["sha256"]) == (1, False, older["sha256"])
    newer = published(store, "--as", "coder", "--alias", "candidate")
    assert (newer["version"], newer["tokens"], newer["aliases"]) == (2, last.tokens, ["candidate"])

    listed = headway(store, "models", "coder", "--verify", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)["models"]
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16"]
    assert rows[1]["origin"] == {
        "run": "run",
        "tokens": last.tokens,
        "checkpoint": last.manifest,
        "sha256": last.sha256,
        "recipe": history.attempts[-1].claim.recipe,
        "data": history.attempts[-1].claim.data,
        "headway": rows[1]["code"]["headway"],
    }
    assert 0 < rows[1]["held_out"] < 10

    model, version = find(store, "coder")
    folder = model.fetch(version)
    assert version.number == 1
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).state_dict()
    weights = load_file(folder / "model.safetensors")
    assert weights
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())

    flip(store, model.find("coder@candidate"))
    with pytest.raises(DamageError, match=r"coder@2: model\.safetensors is not what was published"):
        model.fetch(model.find("coder@candidate"))
    assert model.fetch(version) == folder
    refused = headway(store, "models", "coder", "--verify")
    assert (refused.returncode, "coder@2: model.safetensors" in refused.stderr) == (1, True)


@pytest.mark.slow
def test_a_run_in_a_bucket_becomes_a_model(
    trained: Place, s3_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published from S3 to S3 and fetched into the cache; one flipped bit later a machine without a copy refuses it."""
    store = s3_place.objects
    assert list(copy_run(trained.run("run"), store))
    answer = published(store, "--as", "coder")
    model, version = find(store, "coder@1")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    folder = model.fetch(version)
    assert {path.name: path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json"} == (
        answer["files"]
    )
    flip(store, version)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "other"))
    with pytest.raises(DamageError, match=r"coder@1: model\.safetensors is not what was published"):
        RegisteredModel(s3_place.objects, "coder").fetch(version)
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file()]


def test_what_cannot_be_published_is_refused(place: Place) -> None:
    """No such run: 2, and nothing in the store."""
    done = headway(place.objects, "publish", "nobody", "--as", "coder")
    assert (done.returncode, "no run nobody" in done.stderr) == (2, True)
    assert not list(place.objects.list("models/"))
