"""What an earlier Headway stored stays readable: its run goes on, its model is served, its keys open the endpoint.

`tests/stored/README.md` says who made the files, and how. They are looked at by the command line alone.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.integration.serving import NAME, Served
from tests.integration.training import DEADLINE

STORED = Path(__file__).parents[1] / "stored"
RECIPE = "bccbe467210566669e2d59ff5e9d0cf1d554b21d71744dee05ac0078bf7080db"
"""Digest of the run's recipe."""
UNKILLED = "574bbaf68eebe427017e96ea5469e66169bd184f99992c78f6aa9423283384ab"
"""Fingerprint of the run of the same recipe that nobody killed, by the commit and on the machine of the stored one."""
KEY = "hw-tgMCBXAh1SWrECzBb6yLdwpoaWiAAFKxGsERo-8BjsA"
"""The key of team-a, which opens nothing but this test's endpoint."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is stored, which the test may change."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(STORED, tmp_path / "stored")


def headway(folder: Path, *words: str) -> Any:
    """What a command prints as JSON, run in the folder; it must leave with 0."""
    command = [sys.executable, "-m", "headway.cli", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def processors(folder: Path) -> dict[int, str]:
    """The processor that each checkpoint of the run records, by its tokens."""
    found = [
        json.loads(path.read_text()) for path in (folder / "store/runs/stored/checkpoints").glob("*/manifest.json")
    ]
    return {manifest["tokens"]: manifest["environment"]["device"] for manifest in found}


@pytest.mark.parametrize("file", ["stored.yaml", "store/runs/stored/recipe.yaml"])
def test_a_stored_recipe_keeps_its_digest(folder: Path, file: str) -> None:
    """As it was written and as it was frozen it means the same as ever, so its run may go on."""
    assert headway(folder, "recipe", "check", file)["digest"] == RECIPE


def test_a_stored_run_is_sound(folder: Path) -> None:
    """Its state, its attempts, its time and every byte of its checkpoint are what they were."""
    status = headway(folder, "status", "stored", "--store", "store")
    assert (status["state"], status["tokens"], status["budget"], status["damage"]) == ("killed", 12288, 40960, [])
    assert [(each["number"], each["outcome"], each["to_tokens"]) for each in status["attempts"]] == [
        (1, "preempted", 9728),
        (8, "killed", 12288),
    ]
    [row] = headway(folder, "runs", "--store", "store")["runs"]
    assert (status["loss"], row["loss"]) == (4.346449255943298, 4.362753987312317), "of the log, and of the heartbeat"
    verified = headway(folder, "verify", "stored", "--store", "store")
    assert (verified["entries"], verified["sound"], verified["findings"]) == (10, [12288], [])
    rows = headway(folder, "ledger", "stored", "--store", "store")["rows"]
    assert [(row["attempt"], row["rank"]) for row in rows] == [(1, 0), (8, 0), (8, 1)]
    assert all(row["phases"]["step"] > 0 and abs(row["difference"]) < 1e-3 for row in rows)


def test_a_stored_model_is_sound(folder: Path) -> None:
    """Its version, its alias, its origin and every byte of its files are what they were."""
    listed = headway(folder, "models", "keeper@stable", "--verify", "--store", "store")
    [version] = listed["models"]
    assert (version["version"], version["aliases"], listed["findings"]) == (1, ["stable"], [])
    assert (version["origin"]["run"], version["origin"]["tokens"], version["origin"]["recipe"]) == (
        "stored",
        12288,
        RECIPE,
    )


@pytest.mark.slow
def test_a_stored_run_goes_on_to_the_bits_of_the_unkilled_one(folder: Path) -> None:
    """Resumed from its checkpoint it ends; on the processor that made it, with the bits that it would have had."""
    [made_by] = processors(folder).values()
    ended = headway(folder, "train", "stored.yaml", "--run", "stored", "--store", "store", "--nproc", "2")
    assert (ended["outcome"], ended["tokens"]) == ("done", 40960)
    status = headway(folder, "status", "stored", "--store", "store")
    assert (status["attempts"][-1]["from_tokens"], len(status["attempts"])) == (12288, 3)
    assert headway(folder, "verify", "stored", "--store", "store")["findings"] == []
    fingerprint = headway(folder, "fingerprint", "stored", "--store", "store")["fingerprint"]
    if processors(folder)[40960] == made_by:
        assert fingerprint == UNKILLED


@pytest.mark.slow
def test_a_stored_model_answers_a_stored_key(folder: Path) -> None:
    """The version is served; who has the old key gets a completion, and who has none gets a 401."""
    keys = headway(folder, "keys", "ls", "--file", "keys.json")
    assert [(each["tenant"], each["requests_per_minute"]) for each in keys] == [("team-a", 600), ("team-b", None)]
    store = ["--store", str(folder / "store"), "--keys", str(folder / "keys.json")]
    served = Served("keeper@stable", *store)
    try:
        assert served.await_ready()["version"] == "1"
        ask: dict[str, Any] = {"model": NAME, "prompt": "The run", "max_tokens": 8, "temperature": 0}
        usage = served.client.with_options(api_key=KEY).completions.create(**ask).usage
        assert usage
        assert usage.completion_tokens == 8
        with pytest.raises(openai.AuthenticationError):
            served.client.completions.create(**ask)
        assert served.stop() == 0
    finally:
        served.clean_up()
