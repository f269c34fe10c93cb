"""Local folders of versions: in a folder store, in the cache, or in a chosen folder."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.memory import MemoryStore
from tests.unit.registry.conftest import Publish, origin

from headway.errors import DamageError, StoreError, UsageError
from headway.objectstore.folder import FolderStore
from headway.registry import RegisteredModel, local_cache
from headway.registry.version import VersionReader


class CountingStore(MemoryStore):
    """A store that records which files are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Record the file name, and read."""
        self.read.append(key.rpartition("/")[2])
        return super().fill(key, buffer, start)


@pytest.fixture
def remote(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegisteredModel:
    """A model with one version in a store that is not a folder, and an empty cache."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    model = RegisteredModel(CountingStore(), "coder")
    model.publish(folder, origin(), dtype="float32")
    return model


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without the manifest."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def reads(model: RegisteredModel) -> list[str]:
    """Files read from the store since the last call."""
    assert isinstance(model.store, CountingStore)
    names, model.store.read = model.store.read, []
    return names


def test_a_fetched_version_is_what_was_published(model: RegisteredModel, publish: Publish, folder: Path) -> None:
    """The files are equal byte for byte, with the manifest beside them; progress adds up to their size."""
    version = publish()
    progress: list[int] = []
    fetched = model.fetch(version, advance=progress.append)
    assert contents(fetched) == contents(folder)
    assert (fetched / "manifest.json").read_bytes() == model.store.get(version.manifest)
    assert sum(progress) == version.bytes


def test_a_folder_store_is_read_where_it_lies(model: RegisteredModel, publish: Publish, tmp_path: Path) -> None:
    """A folder store needs no copy of the weights; a bucket is copied to the cache, by the manifest's digest."""
    version = publish()
    fetched = model.fetch(version)
    if isinstance(model.store, FolderStore):
        assert fetched == tmp_path / "store" / Path(version.manifest).parent
        assert not (tmp_path / "cache").exists()
    else:
        assert fetched == tmp_path / "cache/models" / version.sha256


def test_a_cached_version_is_verified_and_not_downloaded_again(remote: RegisteredModel) -> None:
    """The second fetch reads the cache, not the store."""
    version = remote.find("coder")
    first = remote.fetch(version)
    assert sorted(set(reads(remote))) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    progress: list[int] = []
    assert remote.fetch(version, advance=progress.append) == first
    assert reads(remote) == []
    assert sum(progress) == version.bytes


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "config.json"])
def test_a_damaged_copy_in_the_cache_is_downloaded_again(remote: RegisteredModel, folder: Path, name: str) -> None:
    """A flipped byte in the cache is found, and the store's copy replaces it."""
    version = remote.find("coder")
    fetched = remote.fetch(version)
    data = bytearray((fetched / name).read_bytes())
    data[-1] ^= 1
    (fetched / name).write_bytes(data)
    assert contents(remote.fetch(version)) == contents(folder)
    assert list(remote.verify(version))


def test_an_additional_file_in_the_cache_is_put_aside(remote: RegisteredModel, folder: Path) -> None:
    """It counts as damage. The cache did not make it, so it is kept, beside the folder that has taken its place."""
    version = remote.find("coder")
    fetched = remote.fetch(version)
    (fetched / "pytorch_model.bin").write_bytes(b"x")
    (fetched / "notes").mkdir()
    (fetched / "notes" / "mine.txt").write_text("mine")
    assert contents(remote.fetch(version)) == contents(folder)
    (kept,) = (path for path in fetched.parent.iterdir() if path != fetched)
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*")} == {
        "pytorch_model.bin",
        "notes",
        "notes/mine.txt",
    }


def test_a_damaged_copy_stays_until_a_sound_one_has_come(remote: RegisteredModel) -> None:
    """A store that has none leaves what is there."""
    version = remote.find("coder")
    fetched = remote.fetch(version)
    (fetched / "config.json").write_text("{}")
    key = version.manifest.replace("manifest.json", "config.json")
    remote.store.put(key, [b"other"])
    with pytest.raises(DamageError):
        remote.fetch(version)
    assert (fetched / "config.json").read_text() == "{}"
    assert [path.name for path in fetched.parent.iterdir()] == [version.sha256]


def test_the_target_of_a_link_in_the_cache_is_not_touched(
    remote: RegisteredModel, folder: Path, tmp_path: Path
) -> None:
    """Where a version's folder is a link to somebody's folder, only the link is replaced."""
    version = remote.find("coder")
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "config.json").write_text("my thesis")
    target = local_cache.cache_path(version)
    target.parent.mkdir(parents=True)
    target.symlink_to(thesis)
    assert contents(remote.fetch(version)) == contents(folder)
    assert not target.is_symlink()
    assert contents(thesis) == {"config.json": b"my thesis"}
    assert [path.name for path in target.parent.iterdir()] == [version.sha256]


def test_a_version_that_does_not_fit_is_not_begun(remote: RegisteredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk harms everybody on it; the message says how much is needed."""
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"coder@1: its files have [\d,]+ bytes, but .* has room for 100"):
        remote.fetch(remote.find("coder"))
    assert list(local_cache.cache_path(remote.find("coder")).parent.iterdir()) == []


def test_a_failed_fetch_leaves_nothing(remote: RegisteredModel, tmp_path: Path) -> None:
    """A store that fails midway leaves no folder and no partial folder."""

    class Failing(MemoryStore):
        """A store that cannot read weights."""

        def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
            if key.endswith(".safetensors"):
                raise StoreError(f"{key}: cannot be read")
            return super().fill(key, buffer, start)

    assert isinstance(remote.store, MemoryStore)
    store = Failing()
    store.objects = remote.store.objects
    model = RegisteredModel(store, "coder")
    with pytest.raises(StoreError, match="cannot be read"):
        model.fetch(model.find("coder"))
    assert list((tmp_path / "cache/models").iterdir()) == []


def interrupt(patch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Call `other` near the end of the next download."""
    read = VersionReader.read

    def slow(self: VersionReader, name: str) -> Iterator[memoryview]:
        yield from read(self, name)
        if name == "tokenizer.json":
            patch.setattr(VersionReader, "read", read)
            other()

    patch.setattr(VersionReader, "read", slow)


def test_a_folder_that_appears_meanwhile_is_verified(remote: RegisteredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged folder that another process made in the cache during the download is refused."""
    version = remote.find("coder")
    target = local_cache.cache_path(version)

    def spoil() -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")

    interrupt(monkeypatch, spoil)
    with pytest.raises(DamageError, match=r"coder@1: manifest\.json is missing"):
        remote.fetch(version)


def test_concurrent_fetches_share_one_folder(
    remote: RegisteredModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound folder that another process made during the download is verified and used."""
    version = remote.find("coder")
    interrupt(monkeypatch, lambda: RegisteredModel(remote.store, "coder").fetch(version))
    fetched = remote.fetch(version)
    assert contents(fetched) == contents(folder)
    assert [path.name for path in fetched.parent.iterdir()] == [version.sha256]


def test_a_version_is_fetched_to_a_chosen_folder(model: RegisteredModel, publish: Publish, tmp_path: Path) -> None:
    """A new folder, an empty one, or one that holds the version; other folders are left alone."""
    version = publish()
    target = tmp_path / "here/model"
    assert model.fetch(version, target) == target
    assert model.fetch(version, target) == target
    (tmp_path / "empty").mkdir()
    assert contents(model.fetch(version, tmp_path / "empty")) == contents(target)
    (target / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds something other than coder@1"):
        model.fetch(version, target)
    assert (target / "config.json").read_text() == "{}"


def test_a_cache_that_cannot_be_written_is_named(remote: RegisteredModel, tmp_path: Path) -> None:
    """The message names the folder and the cause."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match=r"coder@1: cannot be written to .*cache"):
        remote.fetch(remote.find("coder"))


def test_the_cache_is_the_users_by_default(
    remote: RegisteredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order: `HEADWAY_CACHE`, `XDG_CACHE_HOME`, the user's home."""
    version = remote.find("coder")
    monkeypatch.delenv("HEADWAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert local_cache.cache_path(version) == tmp_path / "xdg/headway/models" / version.sha256
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert local_cache.cache_path(version) == tmp_path / "home/.cache/headway/models" / version.sha256
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
