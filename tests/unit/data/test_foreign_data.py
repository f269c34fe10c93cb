"""Built data that somebody else wrote, or that an accident wrote into: it is named, and never trained on."""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.conftest import Recipes, prose, write_lines

from headway.data import Dataset, open_data
from headway.data import verified_shards as verified
from headway.data.build import build
from headway.data.data_manifest import read_manifest
from headway.data.loader import check_files
from headway.data.token_shard import HEADER
from headway.data.tokenizer_file import read_tokenizer
from headway.data.verified_shards import VerifiedShards
from headway.errors import DataError
from headway.localfiles import file_sha256

BATCH, BLOCK = 1024, 64


def folder(dataset: Dataset) -> Path:
    """The folder of the built data."""
    return dataset.tokenizer_path.parent


def shard(dataset: Dataset, index: int = 0) -> Path:
    """The file of a shard."""
    return folder(dataset) / "shards" / dataset.manifest.shards[index].name


def forge(dataset: Dataset, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and give it the digest of what it says then."""
    path = folder(dataset) / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    shards = [[each["source"], each["split"], each["tokens"], each["sha256"]] for each in document["shards"]]
    meaning = [document["format"], document["tokenizer_sha256"], document["end_of_document"], shards]
    document["digest"] = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()
    path.write_text(json.dumps(document))


def first_shard(**changes: object) -> Callable[[dict[str, Any]], object]:
    """Change the entry of the first shard."""
    return lambda document: document["shards"][0].update(changes)


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a way up": first_shard(name="../../other/large-000000.held_out.tokens"),
    "an absolute path": first_shard(name="/large-000000.held_out.tokens"),
    "a folder": first_shard(name="more/large-000000.held_out.tokens"),
    "another source's": first_shard(name="small-000000.held_out.tokens"),
    "another split's": first_shard(split="train"),
    "a name with an end of line": first_shard(name="large-000000.held_out.tokens\n"),
    "another name": first_shard(name="manifest.json"),
    "a source that leads up": first_shard(source="..", name="..-000000.held_out.tokens"),
    "fewer tokens than none": first_shard(tokens=-1),
    "tokens without end": first_shard(tokens=10**400),
    "a digest that is none": first_shard(sha256="x"),
    "a vocabulary of a list": lambda document: document.update(vocabulary=[300]),
    "a vocabulary without end": lambda document: document.update(vocabulary=10**12),
    "no vocabulary": lambda document: document.update(vocabulary=0),
    "an end that is no token": lambda document: document.update(end_of_document=-1),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_manifest_that_no_build_writes_is_refused(dataset: Dataset, tmp_path: Path, forgery: str) -> None:
    """Also with the right digest, and with a whole shard where a name leads."""
    for place in (tmp_path / "other", folder(dataset) / "shards" / "more"):
        place.mkdir()
        (place / "large-000000.held_out.tokens").write_bytes(shard(dataset).read_bytes())
    forge(dataset, lambda _: None)
    open_data(dataset.recipe)
    forge(dataset, FORGERIES[forgery])
    with pytest.raises(DataError, match="not a sound manifest"):
        open_data(dataset.recipe)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "shard"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_not_a_file_is_refused(dataset: Dataset, name: str, kind: str) -> None:
    """It would hang, or never end."""
    path = shard(dataset) if name == "shard" else folder(dataset) / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(DataError, match=f"{path.name}.*cannot be read: .*(is no regular file|Is a directory)"):
        open_data(dataset.recipe, verify=True)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json"])
def test_a_deep_or_endless_document_is_refused(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In one line, and without reading more than any sound one has."""
    path = folder(dataset) / name
    path.write_text('{"model":' * 200_000)
    with pytest.raises(DataError):
        open_data(dataset.recipe)
    limits = {
        "manifest.json": "data_manifest.MAX_MANIFEST_BYTES",
        "tokenizer.json": "tokenizer_file.MAX_TOKENIZER_BYTES",
    }
    monkeypatch.setattr(f"headway.data.{limits[name]}", 1000)
    with pytest.raises(DataError, match=f"{name} is longer than 1,000 bytes"):
        read_manifest(folder(dataset)) if name == "manifest.json" else read_tokenizer(path)


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused_and_mended(dataset: Dataset) -> None:
    """The digest of the data covers the tokenizer, so it decides; building again writes the right number."""
    before = (folder(dataset) / "manifest.json").read_bytes()
    forge(dataset, lambda document: document.update(vocabulary=document["vocabulary"] + 1))
    with pytest.raises(DataError, match=r"says that .*tokenizer\.json has 401 tokens; it has 400.*headway data build"):
        open_data(dataset.recipe)
    assert build(dataset.recipe, workers=1).digest == dataset.digest
    assert (folder(dataset) / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"model": {"vocab": ["a"]}, "added_tokens": []},
        {"model": {"vocab": {"a": "0"}}, "added_tokens": []},
        {"model": {"vocab": {"a": -1}}, "added_tokens": []},
        {"model": {"vocab": {"a": 10**30}}, "added_tokens": []},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": "1", "content": "b"}]},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": ["b"]}]},
        {"model": {"vocab": {"a": 0}}},
    ],
)
def test_a_tokenizer_of_other_types_is_refused(tmp_path: Path, content: object) -> None:
    """Tokens are texts with a number each."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json of the tokenizers library: "):
        read_tokenizer(path)


def test_a_token_beyond_the_vocabulary_names_its_shard(dataset: Dataset) -> None:
    """Whoever forged the digests as well; torch would say that an index is out of range."""
    path = shard(dataset)
    data = bytearray(path.read_bytes())
    tokens = (len(data) - HEADER.size) // 2
    data[HEADER.size :] = struct.pack("<H", 65_280) * tokens
    path.write_bytes(data)
    forge(dataset, first_shard(sha256=file_sha256(path)))
    forged = open_data(dataset.recipe, verify=True)
    with pytest.raises(DataError, match=rf"{path.name}: token 65,280 is not of the vocabulary of 400"):
        forged.held_out_batches(10**9)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_shard_is_the_one_that_holds_the_token(recipes: Recipes, tmp_path: Path, index: int) -> None:
    """Of several shards of a source, at any place; the last token of the vocabulary is one of it."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.txt").write_text(prose(number, 1 << 20))
    write_lines(tmp_path / "in" / "9.jsonl", [prose(100 + number, 600) for number in range(100)])
    recipe = recipes({"large": tmp_path / "in"}, held_out_share=0.05, document_bytes=10_000)
    manifest = build(recipe, workers=1)
    paths = [Path(recipe.data_path) / "shards" / each.name for each in manifest.select("large", "train")]
    assert len(paths) >= 3
    dataset, batches = open_data(recipe), manifest.blocks(BLOCK)["large"] // (BATCH // BLOCK)
    data = paths[index].read_bytes()
    start = HEADER.size + 1000
    for token in (399, 400):
        tail = struct.pack("<H", token) * ((len(data) - start) // 2)
        paths[index].write_bytes(data[:start] + tail)
        if token == 399:
            lanes = [dataset.lane_batches(batch * BATCH, lane) for batch in range(batches) for lane in range(4)]
            assert max(int(one.inputs.max()) for lane in lanes for one in lane) == 399
    with pytest.raises(DataError, match=rf"{paths[index].name}: token 400 is not of the vocabulary of 400"):
        [dataset.lane_batches(batch * BATCH, lane) for batch in range(batches) for lane in range(4)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that were read whole."""
    names: list[str] = []

    def reading(path: Path) -> str:
        names.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(verified, "file_sha256", reading)
    return names


def flip(path: Path) -> None:
    """Change one bit of the last token of a shard."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def test_a_changed_shard_is_found_before_training_and_mended(dataset: Dataset, reads: list[str]) -> None:
    """Its length tells nothing. The message names it; building again makes it as it was."""
    path = shard(dataset, 1)
    before = path.read_bytes()
    flip(path)
    open_data(dataset.recipe)
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{path.name}: damaged: its SHA-256 .* run `headway data build RECIPE`"):
            open_data(dataset.recipe, verify=True)
    assert set(reads) == {path.name}
    assert build(dataset.recipe, workers=1).digest == dataset.digest
    assert path.read_bytes() == before
    open_data(dataset.recipe, verify=True)


def test_a_shard_is_read_once(dataset: Dataset, reads: list[str], cache: Path) -> None:
    """The build has read it; another user reads it once; a copy is read again."""
    names = [each.name for each in dataset.manifest.shards]
    open_data(dataset.recipe, verify=True)
    build(dataset.recipe, workers=1)
    assert reads == []
    for memory in (cache / "data").iterdir():
        memory.unlink()
    for _ in range(2):
        open_data(dataset.recipe, verify=True)
    assert sorted(reads) == sorted(names)
    path = shard(dataset)
    data = path.read_bytes()
    status = path.stat()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    open_data(dataset.recipe, verify=True)
    assert reads[len(names) :] == [path.name]


@pytest.mark.parametrize("memory", ["[]", "{", '{"large-000000.held_out.tokens": 1}', "[" * 10**5])
def test_a_memory_that_cannot_be_read_is_none(dataset: Dataset, reads: list[str], cache: Path, memory: str) -> None:
    """All shards are read again."""
    (file,) = (cache / "data").iterdir()
    file.write_text(memory)
    open_data(dataset.recipe, verify=True)
    assert len(reads) == len(dataset.manifest.shards)


def test_a_memory_that_others_could_write_is_not_believed(dataset: Dataset, reads: list[str], cache: Path) -> None:
    """Somebody could change a shard, and note that it is sound; in the user's own cache nobody else can."""
    flip(shard(dataset))
    (file,) = (cache / "data").iterdir()
    status = shard(dataset).stat()
    state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    first = dataset.manifest.shards[0]
    file.write_text(json.dumps(json.loads(file.read_text()) | {first.name: [first.sha256, *state]}))
    before = file.read_bytes()
    open_data(dataset.recipe, verify=True)
    assert reads == []
    (cache / "data").chmod(0o777)
    with pytest.raises(DataError, match=f"{first.name}: damaged"):
        open_data(dataset.recipe, verify=True)
    assert file.read_bytes() == before


def test_a_launch_reads_up_to_a_limit_and_the_next_goes_on(
    dataset: Dataset, reads: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So data of any size holds a launch up for seconds; building again reads the rest at once."""
    for memory in (cache / "data").iterdir():
        memory.unlink()
    monkeypatch.setattr("headway.data.loader.VERIFIED_BYTES", 1)
    names = [each.name for each in dataset.manifest.shards]
    for count in (1, 2):
        open_data(dataset.recipe, verify=True)
        assert reads == names[:count]
    VerifiedShards(folder(dataset)).check(dataset.manifest.shards)
    assert sorted(reads) == sorted(names)
    check_files(folder(dataset), dataset.manifest)
