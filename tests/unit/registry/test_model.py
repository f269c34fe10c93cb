"""Versions are published once, aliases point at them, and a name leads to one version or to an error that helps."""

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


def test_a_manifest_says_what_the_files_are_and_where_they_came_from(
    model: RegisteredModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files with sizes and digests, run, position, checkpoint, recipe, data, code, trace: for a person to read."""
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
    """Publishing again gives the version that is there and writes nothing; other files or another origin do not."""
    first = publish()
    before = list(model.store.list("models/"))
    assert publish() == first
    assert list(model.store.list("models/")) == before
    assert publish(2000).number == 2
    (folder / "README.md").write_text("# another\n")
    assert publish().number == 3


def test_a_version_that_is_damaged_is_published_anew(model: RegisteredModel, publish: Publish) -> None:
    """The same files again make a sound version under a new number: the damaged one does not count as the same."""
    first = publish()
    key = keys.folder(first.manifest) + "config.json"
    model.store.put(key, [b"damaged"])
    second = publish()
    assert second.number == 2
    assert publish() == second
    assert sum(model.verify(second)) == second.bytes


class MeetingStore(MemoryStore):
    """A store in which writers of entries wait for each other, so that they all want the same place."""

    def __init__(self, writers: int) -> None:
        super().__init__()
        self.meeting = threading.Barrier(writers)
        self.lock = threading.Lock()
        self.met: set[int] = set()

    def create(self, key: str, data: Buffer) -> None:
        """Wait for the others at the first create of each writer."""
        if threading.get_ident() not in self.met:
            self.met.add(threading.get_ident())
            self.meeting.wait(10)
        with self.lock:
            super().create(key, data)


def test_two_who_publish_at_once_get_different_versions(folder: Path) -> None:
    """Four publishers want the first place: each gets a version of its own, and each version has its own files."""
    store = MeetingStore(4)

    def one(tokens: int) -> tuple[int, int]:
        return tokens, RegisteredModel(store, "coder").publish(folder, origin(tokens), dtype="float32").number

    with ThreadPoolExecutor(4) as publishers:
        got = dict(publishers.map(one, [1, 2, 3, 4]))
    assert sorted(got.values()) == [1, 2, 3, 4]
    model = RegisteredModel(store, "coder")
    for tokens, number in got.items():
        assert model.manifest(model.find(f"coder@{number}")).origin.tokens == tokens


def test_two_who_publish_the_same_at_once_get_the_same_version(folder: Path) -> None:
    """Both uploaded it, one entry was written, and the other's files are gone."""
    store = MeetingStore(2)
    with ThreadPoolExecutor(2) as publishers:
        made = list(
            publishers.map(
                lambda _: RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32"), range(2)
            )
        )
    assert made[0] == made[1]
    assert len(journal(store)) == 1
    assert {keys.folder(key) for key in store.objects} == {
        keys.folder(made[0].manifest),
        keys.model_journal("coder"),
    }


def test_a_publication_that_breaks_off_leaves_no_version(folder: Path) -> None:
    """Whichever upload fails: there is no version, nothing is left, and the same again succeeds."""
    for broken in ("config.json", "model.safetensors", "manifest.json"):

        class Failing(MemoryStore):
            """A store that fails at one file."""

            def put(self, key: str, parts: Iterable[Buffer], broken: str = broken) -> None:
                if key.endswith(broken) and not self.objects.pop("mended", None):
                    raise StoreError(f"{key}: cannot be written")
                super().put(key, parts)

        store = Failing()
        with pytest.raises(StoreError, match=broken):
            RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32")
        assert store.objects == {}
        store.objects["mended"] = b"."
        assert RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32").number == 1


def test_a_file_that_changes_while_it_is_published_is_noticed(folder: Path) -> None:
    """What is uploaded is what was looked at, or nothing is published."""

    class Changing(MemoryStore):
        """A store during whose first write somebody trains on."""

        def put(self, key: str, parts: Iterable[Buffer]) -> None:
            (folder / "model.safetensors").write_bytes(safetensors(b"another"))
            super().put(key, parts)

    store = Changing()
    with pytest.raises(UsageError, match=r"model\.safetensors was changed while it was published"):
        RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32")
    assert store.objects == {}


def test_large_files_are_never_whole_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is given windows of a file, and a reader gets windows of it."""
    monkeypatch.setattr("headway.registry.files.WINDOW_BYTES", 1000)
    monkeypatch.setattr("headway.registry.version.WINDOW_BYTES", 1000)
    given: list[int] = []

    class Counting(MemoryStore):
        """A store that notes how much it is given at once."""

        def put(self, key: str, parts: Iterable[Buffer]) -> None:
            held = list(parts)
            given.extend(memoryview(part).nbytes for part in held if key.endswith(".safetensors"))
            super().put(key, held)

    model = RegisteredModel(Counting(), "coder")
    version = model.publish(folder, origin(), dtype="float32")
    assert max(given) == 1000
    windows = list(model.verify(version))
    assert max(windows) == 1000
    assert sum(windows) == version.bytes


def test_an_alias_moves(model: RegisteredModel, publish: Publish) -> None:
    """An alias is what was said of it last; saying the same again writes nothing."""
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
    """By number, by alias; a name alone is its stable version, and before there is one its newest."""
    one, two = publish(1000), publish(2000)
    assert model.find("coder@1") == one
    assert model.find("coder") == two
    model.alias("stable", 1)
    assert model.find("coder") == model.find("coder@stable") == one
    found, version = find(model.store, "coder@2")
    assert (found.name, version) == ("coder", two)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("coder@3", "model coder has no version 3; it has versions 1, 2 and aliases candidate (2)"),
        ("coder@0", "model coder has no version 0"),
        ("coder@blue", "model coder has no alias blue; it has versions 1, 2 and aliases candidate (2)"),
        ("codex", "no model codex in"),
        ("codex@1", "there: coder"),
        ("../coder", "is no name of a model"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    model: RegisteredModel, publish: Publish, reference: str, said: str
) -> None:
    """A wrong reference names what there is."""
    publish(1000), publish(2000)
    model.alias("candidate", 2)
    with pytest.raises(UsageError) as caught:
        find(model.store, reference)
    assert said in str(caught.value)


@pytest.mark.parametrize("alias", ["", "3", "Stable", "a/b", "a@b", "a" * 101])
def test_an_alias_is_a_word(model: RegisteredModel, publish: Publish, alias: str) -> None:
    """What could be a version, a path or a reference is no alias."""
    publish()
    with pytest.raises(UsageError, match="is no alias"):
        model.alias(alias, 1)


def test_an_alias_points_at_what_there_is(model: RegisteredModel, publish: Publish) -> None:
    """A version that nobody published gets none."""
    publish()
    with pytest.raises(UsageError, match="has no version 2; it has versions 1"):
        model.alias("stable", 2)
    assert model.aliases() == {}


def test_no_number_is_used_twice_after_damage(model: RegisteredModel, publish: Publish) -> None:
    """An entry that cannot be read may have been a version: the next one has a number that it cannot have had."""
    publish(1000), publish(2000)
    model.store.put(journal(model.store)[1], [b"rubbish"])
    assert publish(3000).number == 3
    assert [version.number for version in RegisteredModel(model.store, "coder").versions()] == [1, 3]
    with pytest.raises(DamageError, match="coder@2: nobody vouches for it"):
        RegisteredModel(model.store, "coder").find("coder@2")


def test_a_damaged_entry_may_have_moved_an_alias(model: RegisteredModel, publish: Publish) -> None:
    """The version that an alias meant before is not served in its place; saying it anew ends the doubt."""
    publish(1000), publish(2000)
    model.alias("stable", 1)
    model.alias("stable", 2)
    model.store.put(journal(model.store)[3], [b"rubbish"])
    fresh = RegisteredModel(model.store, "coder")
    for reference in ("coder", "coder@stable", "coder@candidate"):
        with pytest.raises(DamageError, match="journal entry 4 is not readable as one, and it may have moved"):
            fresh.find(reference)
    assert fresh.find("coder@2").number == 2
    fresh.alias("stable", 1)
    assert RegisteredModel(model.store, "coder").find("coder").number == 1


def test_the_code_is_named_by_its_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a checkout: forty digits of its commit; where git does not help: none; what is set counts first."""
    monkeypatch.delenv("HEADWAY_COMMIT", raising=False)
    commit = this_code().commit
    assert commit
    assert len(commit.removesuffix("-dirty")) == 40
    monkeypatch.setenv("PATH", "/nowhere")
    assert this_code().commit is None
    monkeypatch.setenv("HEADWAY_COMMIT", "abc")
    assert this_code().commit == "abc"
