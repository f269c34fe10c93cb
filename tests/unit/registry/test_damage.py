"""A version that is not exactly what was published is refused by name before it is loaded."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.memory import MemoryStore
from tests.unit.registry.conftest import Publish, origin, safetensors

from headway.errors import DamageError
from headway.objectstore import Store
from headway.registry import RegisteredModel, Version
from headway.runs import hashlog, keys
from headway.runs.hashlog import sha256

FILES = ("model.safetensors", "config.json", "tokenizer.json", "README.md", "manifest.json")


def key(version: Version, name: str) -> str:
    """Key of one object of a version."""
    return keys.folder(version.manifest) + name


def refusal(store: Store, reference: str = "coder@1") -> str:
    """The error of fetching a version; verifying it fails, too."""
    model = RegisteredModel(store, "coder")
    with pytest.raises(DamageError) as caught:
        model.fetch(model.find(reference))
    with pytest.raises(DamageError):
        list(model.verify(model.find(reference)))
    return str(caught.value)


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_is_found(
    model: RegisteredModel, publish: Publish, tmp_path: Path, name: str, at: int
) -> None:
    """The message names version and file, and no folder of the version appears."""
    version = publish()
    data = bytearray(model.store.get(key(version, name)))
    data[at] ^= 1
    model.store.put(key(version, name), [data])
    assert refusal(model.store).startswith(f"coder@1: {name} is not ")
    assert list((tmp_path / "cache").rglob("*.*")) == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(model: RegisteredModel, publish: Publish, name: str) -> None:
    """The message names it."""
    version = publish()
    model.store.delete(key(version, name))
    assert refusal(model.store).startswith(f"coder@1: {name} is missing")


def test_a_missing_file_is_found_even_if_it_was_empty(model: RegisteredModel, publish: Publish, folder: Path) -> None:
    """Its length and digest alone do not show that it is missing."""
    (folder / "notes.txt").write_bytes(b"")
    version = publish()
    assert sum(model.verify(version)) == version.bytes
    model.store.delete(key(version, "notes.txt"))
    assert refusal(model.store).startswith("coder@1: notes.txt is missing")


@pytest.mark.parametrize("length", [5, 17_000])
def test_a_file_of_another_length_is_found(model: RegisteredModel, publish: Publish, length: int) -> None:
    """A truncated or longer file is found without reading it."""
    version = publish()
    data = model.store.get(key(version, "model.safetensors"))
    model.store.put(key(version, "model.safetensors"), [(data * 2)[:length]])
    message = refusal(model.store)
    assert f"coder@1: model.safetensors is {length:,} bytes long; {len(data):,} were published" in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "more.safetensors", "deep/config.json"])
def test_an_additional_file_is_found(model: RegisteredModel, publish: Publish, name: str) -> None:
    """A loader might prefer it to the published files."""
    model.store.put(key(publish(), name), [b"x"])
    assert refusal(model.store).startswith(f"coder@1: {name} was not published with it")


def test_a_forged_manifest_is_found(model: RegisteredModel, publish: Publish) -> None:
    """Files and manifest that agree with each other, but not with the journal, are refused."""
    version = publish()
    forged = b'{"model_type": "other"}\n'
    document = json.loads(model.store.get(version.manifest))
    document["files"]["config.json"] = {"size": len(forged), "sha256": sha256(forged)}
    model.store.put(key(version, "config.json"), [forged])
    model.store.put(version.manifest, [json.dumps(document, indent=1).encode() + b"\n"])
    assert "manifest.json is not the one whose SHA-256 is in the model's journal" in refusal(model.store)


def rewrite(store: Store, seq: int, **changes: object) -> None:
    """Edit an entry of the journal, and its checksum with it."""
    where = keys.hashlog_entry(keys.model_journal("coder"), seq)
    entry = RegisteredModel(store, "coder").journal.read()[seq - 1]
    assert isinstance(entry, hashlog.LogEntry)
    store.put(where, [hashlog.encode(entry.model_copy(update=changes))])


def test_an_edited_journal_is_found(model: RegisteredModel, publish: Publish) -> None:
    """An entry edited together with its checksum does not match the digest in the next entry."""
    one, two = publish(1000), publish(2000)
    rewrite(model.store, 1, manifest=two.manifest, sha256=two.sha256)
    with pytest.raises(
        DamageError, match=r"coder@1: no readable journal entry names it .journal entry 1 was changed after entry 2"
    ):
        RegisteredModel(model.store, "coder").find("coder@1")
    assert RegisteredModel(model.store, "coder").find("coder@2") == two
    assert one.sha256 != two.sha256


def test_a_version_of_another_model_is_found(model: RegisteredModel, publish: Publish, folder: Path) -> None:
    """A manifest of another model is refused where its own entry names it."""
    version = publish()
    other = RegisteredModel(model.store, "other").publish(folder, origin(), dtype="float32")
    model.store.put(version.manifest, [model.store.get(other.manifest)])
    rewrite(model.store, 1, sha256=other.sha256)
    assert "belongs to another model, other" in refusal(model.store)


FORGERIES: dict[str, tuple[dict[str, object], str]] = {
    "a folder of the user": ({"sha256": "/home/me/thesis"}, "is unreadable"),
    "a way out of the cache": ({"sha256": "../../thesis"}, "is unreadable"),
    "a digest in capitals": ({"sha256": "A" * 64}, "is unreadable"),
    "a digest with an end of line": ({"sha256": "0" * 64 + "\n"}, "is unreadable"),
    "content that is no digest": ({"content": "x"}, "is unreadable"),
    "fewer bytes than none": ({"bytes": -1}, "is unreadable"),
    "bytes without end": ({"bytes": 10**400}, "is unreadable"),
    "version 0": ({"version": 0}, "is unreadable"),
    "a version to come": ({"version": 10**9}, "names version 1000000000, which cannot exist yet"),
    "a run's manifest": ({"manifest": "runs/tale/checkpoints/manifest.json"}, "names a manifest that no version"),
    "another model's": ({"manifest": f"models/other/{1000:015d}-{'0' * 16}/manifest.json"}, "names a manifest that no"),
    "a way up": ({"manifest": f"models/coder/../other/{1000:015d}-{'0' * 16}/manifest.json"}, "names a manifest that"),
    "a file of the version": (
        {"manifest": f"models/coder/{1000:015d}-{'0' * 16}/config.json"},
        "names a manifest that",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_an_entry_that_no_publication_writes_is_damage(
    model: RegisteredModel, publish: Publish, folder: Path, tmp_path: Path, forgery: str
) -> None:
    """With right digests it still may say only what fits: the other versions are there, and nothing is touched."""
    first, second = publish(1000), publish(2000)
    assert first
    model.alias("stable", 1)
    changes, problem = FORGERIES[forgery]
    forge(model.store, 2, **changes)
    fresh = RegisteredModel(model.store, "coder")
    history = fresh.history()
    assert [(entry.seq, problem in entry.reason) for entry in history.damaged] == [(2, True)]
    assert fresh.versions() == [first]
    assert contents(fresh.fetch(fresh.find("coder@1"))) == contents(folder)
    with pytest.raises(DamageError, match="coder@2: no readable journal entry names it"):
        fresh.find(f"coder@{second.number}")
    assert fresh.publish(folder, origin(3000), dtype="float32").number == 3  # entry 2 may have been a version
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "exported", "store"}


def forge(store: Store, seq: int, **changes: object) -> None:
    """Change an entry of the journal, and write it and those after it anew with right digests."""
    model = RegisteredModel(store, "coder")
    entries, tail = model.journal.read(), ""
    for entry in entries:
        assert isinstance(entry, hashlog.LogEntry)
        fields = {"previous": tail} | (changes if entry.seq == seq else {})
        data = hashlog.encode(entry.model_copy(update=fields))
        store.put(keys.hashlog_entry(model.journal.prefix, entry.seq), [data])
        tail = sha256(data)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without the manifest."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_a_manifest_of_more_than_its_entry_says_is_refused(model: RegisteredModel, publish: Publish) -> None:
    """So a reader knows how much it will fetch from the entry alone."""
    version = publish()
    forge(model.store, 1, bytes=version.bytes - 1)
    assert "bytes of files; the model's journal says" in refusal(model.store)


SPOILS: dict[str, Callable[[dict[str, object]], object]] = {
    "a pickle": lambda files: files.update({"pytorch_model.bin": {"size": 1, "sha256": "0" * 64}}),
    "a way out": lambda files: files.update({"../config.json": {"size": 1, "sha256": "0" * 64}}),
    "no digest": lambda files: files.update({"config.json": {"size": 1, "sha256": "0"}}),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_manifest_with_forbidden_content_is_refused(model: RegisteredModel, publish: Publish, spoil: str) -> None:
    """Pickles and paths are refused even if the journal holds the manifest's SHA-256."""
    version = publish()
    document = json.loads(model.store.get(version.manifest))
    SPOILS[spoil](document["files"])
    data = json.dumps(document).encode()
    model.store.put(version.manifest, [data])
    rewrite(model.store, 1, sha256=sha256(data))
    assert "coder@1: manifest.json: not a sound manifest" in refusal(model.store)


@given(st.data())
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    """After a flip of any bit of any object, the version is not loaded by its alias."""
    store, sound = MemoryStore(), published()
    store.objects = dict(sound)
    key = data.draw(st.sampled_from(sorted(sound)))
    bit = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(sound[key]) * 8)
    flipped = bytearray(sound[key])
    flipped[bit // 8] ^= 1 << bit % 8
    store.objects[key] = bytes(flipped)
    model = RegisteredModel(store, "coder")
    if key == keys.hashlog_entry(keys.model_journal("coder"), 2) and same(bytes(flipped), sound[key]):
        return  # white space in the last entry does not change its content
    with pytest.raises(DamageError, match="coder@"):
        list(model.verify(model.find("coder@stable")))


@cache
def published() -> dict[str, bytes]:
    """The objects of a model with one version and one alias."""
    store = MemoryStore()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "model.safetensors").write_bytes(safetensors(bytes(range(256))))
        (folder / "config.json").write_text('{"model_type": "llama"}\n')
        RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32")
    RegisteredModel(store, "coder").alias("stable", 1)
    return store.objects


def same(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same JSON."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False
