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

from headway.errors import DamageError
from headway.registry import find
from headway.store import keys
from tests.integration.training import Place


def headway(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command over the place's store."""
    command = [sys.executable, "-m", "headway.cli", *words, "--store", place.url or str(place.store)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def published(place: Place, *words: str) -> Any:
    """What `headway publish` answers."""
    done = headway(place, "publish", "run", "--as", "coder", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["place", "s3_place"])
def test_a_run_becomes_a_model(
    request: pytest.FixtureRequest, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints become two versions with their provenance; what is fetched has the run's bits, or is refused."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    place: Place = request.getfixturevalue(where)
    assert place.train("run").process.returncode == 0
    first, last = place.history("run").commits[0], place.history("run").commits[-1]

    older = published(place, "--tokens", str(first.tokens), "--dtype", "float32", "--alias", "stable")
    assert (older["version"], older["tokens"], older["aliases"], older["new"]) == (1, first.tokens, ["stable"], True)
    again = published(place, "--tokens", str(first.tokens), "--dtype", "float32")
    assert (again["version"], again["new"], again["sha256"]) == (1, False, older["sha256"])
    newer = published(place, "--alias", "candidate")
    assert (newer["version"], newer["tokens"]) == (2, last.tokens)

    listed = json.loads(headway(place, "models", "coder", "--verify", "--json").stdout)
    assert [row["dtype"] for row in listed["models"]] == ["float32", "bfloat16"]
    origin = listed["models"][1]["origin"]
    assert (origin["run"], origin["tokens"], origin["checkpoint"]) == ("run", last.tokens, last.manifest)
    assert origin["sha256"] == last.sha256
    assert origin["recipe"] == place.history("run").attempts[-1].claim.recipe
    assert origin["data"] == place.history("run").attempts[-1].claim.data
    assert listed["models"][1]["held_out"] < 10

    model, version = find(place.objects, "coder")
    folder = model.fetch(version)
    assert version.number == 1
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items() if name in weights)
    assert f"# {place.run('run').recipe().name}" in (folder / "README.md").read_text(encoding="utf-8")

    key = f"{keys.folder(newer['manifest'])}model.safetensors"
    data = bytearray(place.objects.get(key))
    data[len(data) // 2] ^= 1
    place.objects.put(key, [data])
    with pytest.raises(DamageError, match=r"coder@2: model\.safetensors is not what was published"):
        model.fetch(model.find("coder@candidate"))
    refused = headway(place, "models", "coder", "--verify")
    assert (refused.returncode, "coder@2: model.safetensors" in refused.stderr) == (1, True)


def test_what_cannot_be_published_is_refused(place: Place) -> None:
    """No such run, no such checkpoint: 2, and nothing in the store."""
    done = headway(place, "publish", "nobody", "--as", "coder")
    assert (done.returncode, "no run nobody" in done.stderr) == (2, True)
    assert not list(place.objects.list("models/"))
