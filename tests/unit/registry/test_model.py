"""Versions are published once, aliases point at them, and a reference resolves to one version or a helpful error."""

import json
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.memory import MemoryStore
from tests.unit.registry.conftest import Publish, origin, safetensors

from headway.errors import DamageError, StoreError, UsageError
from headway.objectstore import Buffer, Store
from headway.registry import RegisteredModel, find, model_names
from headway.registry.code import this_code
from headway.runs import keys


def journal(store: Store) -> list[str]:
    """Keys of the model's journal."""
    return list(store.list(keys.model_journal("coder")))


def test_versions_are_numbered_from_one(model: RegisteredModel, publish: Publish) -> None:
    """Each publication of another checkpoint is the next version, in the journal and in the store."""
    assert [publish(tokens).number for tokens in (1000, 2000, 3000)] == [1, 2, 3]
    assert [str(version) for version in model.versions()] == ["coder@1", "coder@2", "coder@3"]
    assert model_names(model.store) == ["coder"]
    assert len(journal(model.store)) == 3
    assert journal(model.store)[0] == "models/coder/journal/00000001.json"


def test_a_manifest_holds_the_files_and_their_origin(
    model: RegisteredModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is readable JSON: files with sizes and digests, origin, types, code and trace."""
    monkeypatch.setenv("HEADWAY_COMMIT", "abc")
    version = model.publish(folder, origin(), dtype="bfloat16", held_out=1.5, trace="00-a-b-01")
    text = model.store.get(version.manifest).decode()
    manifest = model.manifest(version)
    assert json.loads(text) == manifest.model_dump(mode="json")
    assert manifest.origin == origin()
    assert (manifest.dtype, manifest.quantization, manifest.held_out) == ("bfloat16", None, 1.5)
    assert (manifest.code.commit, manifest.trace) == ("abc", "00-a-b-01")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {name: file.size for name, file in manifest.files.items()} == sizes
    assert version.bytes == sum(sizes.values())


def test_the_same_files_of_the_same_checkpoint_are_one_version(
    model: RegisteredModel, publish: Publish, folder: Path
) -> None:
    """Publishing again returns the existing version and writes nothing; other files or origins make a new version."""
    first = publish()
    before = list(model.store.list("models/"))
    assert publish() == first
    assert list(model.store.list("models/")) == before
    assert publish(2000).number == 2
    (folder / "README.md").write_text("# another\n")
    assert publish().number == 3


def test_a_damaged_version_is_published_again(model: RegisteredModel, publish: Publish) -> None:
    """The same files make a sound version under a new number."""
    first = publish()
    key = keys.folder(first.manifest) + "config.json"
    model.store.put(key, [b"damaged"])
    second = publish()
    assert second.number == 2
    assert publish() == second
    assert sum(model.verify(second)) == second.bytes


class BarrierStore(MemoryStore):
    """A store in which writers of entries wait for each other, so that they all create the same key."""

    def __init__(self, writers: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(writers)
        self.lock = threading.Lock()
        self.writers: set[int] = set()

    def create(self, key: str, data: Buffer) -> None:
        """Wait for the others at the first create of each writer."""
        if threading.get_ident() not in self.writers:
            self.writers.add(threading.get_ident())
            self.barrier.wait(10)
        with self.lock:
            super().create(key, data)


def test_two_who_publish_at_once_get_different_versions(folder: Path) -> None:
    """Four publishers compete for the first entry: each gets its own version with its own files."""
    store = BarrierStore(4)

    def one(tokens: int) -> tuple[int, int]:
        return tokens, RegisteredModel(store, "coder").publish(folder, origin(tokens), dtype="float32").number

    with ThreadPoolExecutor(4) as publishers:
        numbers = dict(publishers.map(one, [1, 2, 3, 4]))
    assert sorted(numbers.values()) == [1, 2, 3, 4]
    model = RegisteredModel(store, "coder")
    for tokens, number in numbers.items():
        assert model.manifest(model.find(f"coder@{number}")).origin.tokens == tokens


def test_two_who_publish_the_same_at_once_get_the_same_version(folder: Path) -> None:
    """Both upload it; one entry is written, and the files of the other are deleted."""
    store = BarrierStore(2)
    with ThreadPoolExecutor(2) as publishers:
        versions = list(
            publishers.map(
                lambda _: RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32"), range(2)
            )
        )
    assert versions[0] == versions[1]
    assert len(journal(store)) == 1
    assert {keys.folder(key) for key in store.objects} == {
        keys.folder(versions[0].manifest),
        keys.model_journal("coder"),
    }


def test_a_failed_publication_leaves_no_version(folder: Path) -> None:
    """After any failed upload there is no version and no object, and publishing again succeeds."""
    for broken in ("config.json", "model.safetensors", "manifest.json"):

        class Failing(MemoryStore):
            """A store that fails at one file."""

            def put(self, key: str, parts: Iterable[Buffer], broken: str = broken) -> None:
                if key.endswith(broken) and not self.objects.pop("repaired", None):
                    raise StoreError(f"{key}: cannot be written")
                super().put(key, parts)

        store = Failing()
        with pytest.raises(StoreError, match=broken):
            RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32")
        assert store.objects == {}
        store.objects["repaired"] = b"."
        assert RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32").number == 1


def test_a_file_that_changes_while_it_is_published_is_refused(folder: Path) -> None:
    """The uploaded bytes match the manifest, or nothing is published."""

    class Changing(MemoryStore):
        """A store during whose first write a file changes."""

        def put(self, key: str, parts: Iterable[Buffer]) -> None:
            (folder / "model.safetensors").write_bytes(safetensors(b"another"))
            super().put(key, parts)

    store = Changing()
    with pytest.raises(UsageError, match=r"model\.safetensors was changed while it was being published"):
        RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32")
    assert store.objects == {}


def test_large_files_are_never_whole_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads and reads process a file in chunks."""
    monkeypatch.setattr("headway.registry.files.CHUNK_BYTES", 1000)
    monkeypatch.setattr("headway.registry.version.CHUNK_BYTES", 1000)
    sizes: list[int] = []

    class Counting(MemoryStore):
        """A store that records the size of each part."""

        def put(self, key: str, parts: Iterable[Buffer]) -> None:
            buffers = list(parts)
            sizes.extend(memoryview(part).nbytes for part in buffers if key.endswith(".safetensors"))
            super().put(key, buffers)

    model = RegisteredModel(Counting(), "coder")
    version = model.publish(folder, origin(), dtype="float32")
    assert max(sizes) == 1000
    chunks = list(model.verify(version))
    assert max(chunks) == 1000
    assert sum(chunks) == version.bytes


def test_an_alias_moves(model: RegisteredModel, publish: Publish) -> None:
    """The last move counts; repeating it writes nothing."""
    publish(1000), publish(2000)
    model.alias("candidate", 2)
    model.alias("stable", 1)
    assert model.aliases() == {"candidate": 2, "stable": 1}
    length = len(journal(model.store))
    model.alias("stable", 1)
    assert len(journal(model.store)) == length
    model.alias("stable", 2)
    assert RegisteredModel(model.store, "coder").aliases() == {"candidate": 2, "stable": 2}


def test_a_reference_finds_a_version(model: RegisteredModel, publish: Publish) -> None:
    """A number, an alias, or a name: its stable version, or its newest if there is no stable one."""
    one, two = publish(1000), publish(2000)
    assert model.find("coder@1") == one
    assert model.find("coder") == two
    model.alias("stable", 1)
    assert model.find("coder") == model.find("coder@stable") == one
    registered, version = find(model.store, "coder@2")
    assert (registered.name, version) == ("coder", two)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("coder@3", "model coder has no version 3; it has versions 1, 2 and aliases candidate (2)"),
        ("coder@0", "model coder has no version 0"),
        ("coder@blue", "model coder has no alias blue; it has versions 1, 2 and aliases candidate (2)"),
        ("codex", "no model codex in"),
        ("codex@1", "its models: coder"),
        ("../coder", "is not a name for a model"),
    ],
)
def test_a_wrong_reference_lists_the_existing_ones(
    model: RegisteredModel, publish: Publish, reference: str, message: str
) -> None:
    """The message lists versions, aliases or models."""
    publish(1000), publish(2000)
    model.alias("candidate", 2)
    with pytest.raises(UsageError) as caught:
        find(model.store, reference)
    assert message in str(caught.value)


@pytest.mark.parametrize("alias", ["", "3", "Stable", "a/b", "a@b", "a" * 101])
def test_an_alias_name_is_checked(model: RegisteredModel, publish: Publish, alias: str) -> None:
    """Version numbers, paths and references are not aliases."""
    publish()
    with pytest.raises(UsageError, match="is not an alias"):
        model.alias(alias, 1)


def test_an_alias_points_at_an_existing_version(model: RegisteredModel, publish: Publish) -> None:
    """A version that is not published cannot get an alias."""
    publish()
    with pytest.raises(UsageError, match="has no version 2; it has versions 1"):
        model.alias("stable", 2)
    assert model.aliases() == {}


def test_no_number_is_used_twice_after_damage(model: RegisteredModel, publish: Publish) -> None:
    """An unreadable entry may have been a version, so the next version skips its number."""
    publish(1000), publish(2000)
    model.store.put(journal(model.store)[1], [b"rubbish"])
    assert publish(3000).number == 3
    assert [version.number for version in RegisteredModel(model.store, "coder").versions()] == [1, 3]
    with pytest.raises(DamageError, match="coder@2: no readable journal entry names it"):
        RegisteredModel(model.store, "coder").find("coder@2")


def test_a_damaged_entry_may_have_moved_an_alias(model: RegisteredModel, publish: Publish) -> None:
    """The alias is refused instead of resolving to its earlier version, until it is set again."""
    publish(1000), publish(2000)
    model.alias("stable", 1)
    model.alias("stable", 2)
    model.store.put(journal(model.store)[3], [b"rubbish"])
    fresh = RegisteredModel(model.store, "coder")
    for reference in ("coder", "coder@stable", "coder@candidate"):
        with pytest.raises(DamageError, match="journal entry 4 is unreadable, and it may have moved"):
            fresh.find(reference)
    assert fresh.find("coder@2").number == 2
    fresh.alias("stable", 1)
    assert RegisteredModel(model.store, "coder").find("coder").number == 1


def test_the_code_is_named_by_its_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HEADWAY_COMMIT` comes first, then the forty digits of the checkout's commit; without git there is none."""
    monkeypatch.delenv("HEADWAY_COMMIT", raising=False)
    commit = this_code().commit
    assert commit
    assert len(commit.removesuffix("-dirty")) == 40
    monkeypatch.setenv("PATH", "/nowhere")
    assert this_code().commit is None
    monkeypatch.setenv("HEADWAY_COMMIT", "abc")
    assert this_code().commit == "abc"
