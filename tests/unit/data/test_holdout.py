"""Which documents are held out: all pieces of one or none; data that was split otherwise goes on as it is."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tests.unit.data.conftest import Recipes, prose
from tests.unit.data.test_build import texts

from headway.data import open_data
from headway.data import unit as units
from headway.data.build import build
from headway.data.data_manifest import read_manifest
from headway.data.documents import read_documents
from headway.data.holdout import Holdout
from headway.data.read_counts import ReadCounts
from headway.data.source import inventory
from headway.data.unit import plan_units
from headway.errors import DataError
from headway.recipe import Recipe, Source, load

OLD = Path(__file__).parents[2] / "stored" / "split_1"
OLD_DIGEST = "9c6af7cf26703b4172029e2ebe5aded17df58f97c516c39d4f9362c5f77ce319"
"""Of the data that the rule of before split, as tests/stored/README.md tells."""


def lines(path: Path, documents: list[str]) -> None:
    """JSON records."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))


def files(path: Path, documents: list[str], ending: str, pack: Callable[[bytes], bytes]) -> None:
    """A file for each document."""
    for number, text in enumerate(documents):
        (path.parent / f"{number}{ending}").write_bytes(pack(text.encode()))


WRITERS: dict[str, Callable[[Path, list[str]], object]] = {
    "text": lambda path, documents: files(path, documents, ".txt", bytes),
    "gzip": lambda path, documents: files(path, documents, ".txt.gz", gzip.compress),
    "zstd": lambda path, documents: files(path, documents, ".txt.zst", zstandard.compress),
    "lines": lambda path, documents: lines(path.with_suffix(".jsonl"), documents),
    "rows": lambda path, documents: pq.write_table(
        pa.table({"text": documents}), path.with_suffix(".parquet"), row_group_size=3
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_pieces_of_a_document_are_on_one_side(
    recipes: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """However it is stored, and although the units of work cut a large file where they like."""
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 5_000)
    (tmp_path / "in").mkdir()
    documents = [
        "".join(f"doc{number:02} {line}\n" for line in prose(number, 6_000).splitlines()) for number in range(20)
    ]
    WRITERS[kind](tmp_path / "in" / "x", documents)
    recipe = recipes({"s": tmp_path / "in"}, document_bytes=1_000, held_out_share=0.4)
    manifest = build(recipe, workers=1)
    sides = [{text[:5] for text in texts(recipe, manifest, split)} for split in ("train", "held_out")]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 20
    assert sum(len(texts(recipe, manifest, split)) for split in ("train", "held_out")) > 100


@pytest.mark.parametrize("size", [500, 3_000, 2_500_000])
def test_a_document_is_on_the_same_side_however_it_is_stored(tmp_path: Path, size: int) -> None:
    """Shorter and longer than a piece, and longer than what is hashed, in one unit or several."""
    hashes: set[int] = set()
    for kind, write in WRITERS.items():
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / "x", [prose(1, size)])
        for limit in (1_000, 900_000):
            listing = inventory("s", Source(path=str(tmp_path / kind)), exclude=tmp_path / "out")
            planned, _ = plan_units("s", listing, "text", limit)
            spans = [span for unit in planned for span in unit.spans]
            hashes |= {each.start_hash for span in spans for each in read_documents(span, "text", limit, ReadCounts())}
    assert len(hashes) == 1


def test_documents_that_begin_alike_are_not_all_on_one_side(tmp_path: Path) -> None:
    """Files with one license at their head differ after their first piece."""
    lines(tmp_path / "x.jsonl", [prose(0, 2_000) + prose(number, 100) for number in range(1, 30)])
    listing = inventory("s", Source(path=str(tmp_path)), exclude=tmp_path / "out")
    planned, _ = plan_units("s", listing, "text", 1_000)
    documents = [*read_documents(planned[0].spans[0], "text", 1_000, ReadCounts())]
    assert {Holdout(0.5).includes(each) for each in documents} == {False, True}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose data an earlier Headway built and split; this is its working directory, with its sources."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    for file in json.loads(Path("data/plan.json").read_text())["files"]["pages"]:
        os.utime(file["path"], ns=(0, file["modified"]))
    return load(Path("split_1.yaml"))


def test_data_that_was_split_piece_by_piece_is_read_as_it_is(old: Recipe) -> None:
    """Its digest, and so the runs that were begun on it, stay; pieces of its documents are on both sides."""
    before = Path("data/manifest.json").read_bytes()
    assert open_data(old, verify=True).digest == OLD_DIGEST
    manifest = build(old, workers=1)
    assert (manifest.digest, manifest.split_rule, manifest.sources["pages"].input) == (OLD_DIGEST, 1, None)
    assert Path("data/manifest.json").read_bytes() == before


@pytest.mark.parametrize("harm", ["shard", "tokenizer", "unfinished"])
def test_data_that_was_split_piece_by_piece_is_mended_to_the_same_digest(old: Recipe, harm: str) -> None:
    """A build that was begun goes on by its own rule."""
    if harm == "tokenizer":
        Path("data/tokenizer.json").write_text("{}")
    else:
        Path("data/shards/pages-000000.train.tokens").unlink()
    if harm == "unfinished":
        Path("data/manifest.json").unlink()
    manifest = build(old, workers=1)
    assert (manifest.digest, manifest.split_rule) == (OLD_DIGEST, 1)
    assert open_data(old, verify=True).digest == OLD_DIGEST


def test_data_is_built_anew_by_the_newest_rule(old: Recipe) -> None:
    """Where nothing is left of it, or its unfinished build begins anew because the sources changed."""
    Path("data/manifest.json").unlink()
    with Path("text/4.txt").open("a") as file:
        file.write("more\n")
    assert build(old, workers=1).split_rule == 2
    shutil.rmtree("data")
    manifest = build(old, workers=1)
    assert (manifest.split_rule, manifest.digest != OLD_DIGEST) == (2, True)
    assert read_manifest(Path("data")) == manifest


@pytest.mark.parametrize("rule", [0, 3, "1", [], None])
def test_a_rule_that_there_is_not_is_refused(old: Recipe, rule: object) -> None:
    """In the manifest and in the plan of an unfinished build."""
    for path in (Path("data/manifest.json"), Path("data/plan.json")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"split_rule": rule}))
        with pytest.raises(DataError, match=path.name):
            build(old, workers=1)
        path.unlink()
