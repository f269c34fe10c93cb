"""What Headway itself wrote below a source is no text: it is known by the files at its root, and left out whole."""

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.unit.data.conftest import Recipes, prose, write_lines

from headway.data import source as sources
from headway.data.build import build
from headway.data.source import inventory
from headway.errors import DataError
from headway.localfiles import CACHE_VARIABLE
from headway.recipe import Source

STORED = Path(__file__).parents[2] / "stored"
NOWHERE = Path("/nowhere")
SUBMISSION = {"name": "a", "cluster": None, "user": "u", "host": "h", "folder": "/", "time": 1.0, "recipe": "name: a"}


def listed(path: Path) -> tuple[list[str], dict[str, int], int]:
    """The files of a source, what was left out, and how many there are together."""
    listing = inventory("s", Source(path=str(path)), exclude=NOWHERE)
    return [file.name for file in listing.files], dict(listing.dropped), listing.total


@pytest.mark.parametrize(
    "parts", [("manifest.json", "plan.json", "shards", "tokenizer.json", "units"), ("manifest.json", "tokenizer.json"),
              ("plan.json", "tokenizer.json", "units"), ("plan.json", "tokenizer.json")]
)  # fmt: skip
def test_built_data_is_left_out(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """Whatever its folder is called, whole, half built, moved or being deleted."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "any" / "name").mkdir(parents=True)
    for part in parts:
        copy = shutil.copytree if (STORED / "data" / part).is_dir() else shutil.copy
        copy(STORED / "data" / part, tmp_path / "any" / "name" / part)
    assert listed(tmp_path) == (["a.txt"], {"folder of built data": 1}, 2)


def test_a_store_is_left_out_and_what_lies_beside_it_is_read(tmp_path: Path) -> None:
    """Runs, models and submissions; also one run, copied elsewhere."""
    (tmp_path / "a.txt").write_text("a")
    shutil.copytree(STORED / "store", tmp_path / "mine")
    shutil.copytree(STORED / "store/runs/stored", tmp_path / "copied")
    (tmp_path / "mine" / "submissions").mkdir()
    (tmp_path / "mine" / "submissions" / "a.json").write_text(json.dumps(SUBMISSION))
    (tmp_path / "mine" / "notes.txt").write_text("notes")
    assert listed(tmp_path) == (["a.txt", "mine/notes.txt"], {"part of a run store": 4}, 6)


def test_what_is_only_called_like_them_is_read(tmp_path: Path) -> None:
    """Names decide nothing: diaries, other programs' manifests and pipes are what they are."""
    for name, text in {
        "journal/00000001.json": '{"seq": 1}',
        "journal/20261127.json": "[1]",
        "runs/a/journal/00000001.json": "{",
        "models/a/journal/00000001.json": "[" * 9999,
        "submissions/a.json": '{"name": "a"}',
        "app/manifest.json": '{"meaning": 1, "shards": 2}',
        "app/plan.json": "null",
        "store/runs/README.md": "no runs yet",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/manifest.json")
    names, dropped, total = listed(tmp_path)
    assert (len(names), dropped, total) == (8, {"not a regular file": 1}, 9)


def test_a_source_that_is_built_data_is_refused(tmp_path: Path) -> None:
    """The message says why there is nothing."""
    shutil.copytree(STORED / "data", tmp_path / "in")
    with pytest.raises(DataError, match=r"no files at .*left out: 1 × folder of built data"):
        listed(tmp_path / "in")


def test_a_build_inside_its_own_source_gives_the_same_digest_again(
    recipes: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside other data, a store and the cache; from nothing, over what was built, and after a kill."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    write_lines(tmp_path / "text" / "x.jsonl", [prose(seed, 600) for seed in range(60)])
    first, second = (recipes({"web": {"path": "."}}, path=name) for name in ("data-t", "data-u"))
    manifest = build(first, workers=1)
    shutil.copytree(STORED / "store", tmp_path / "runs")
    assert build(second, workers=1).digest == manifest.digest
    for harm in ("manifest.json", "plan.json", "units", "shards", "."):
        path = tmp_path / "data-t" / harm
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if harm == "plan.json":
            shutil.rmtree(tmp_path / "data-t")
        again = build(first, workers=1)
        assert again.digest == manifest.digest, harm
    counts = again.sources["web"].input
    assert counts
    assert counts.files_left_out == {
        "cache of Headway": 1, "folder of built data": 1, "folder that the build writes to": 1, "part of a run store": 2
    }  # fmt: skip
    assert (counts.files, again.sources["web"].files) == (6, 1)
    assert sources.TARGET in again.sources["web"].dropped
