"""Where a version's files are on this machine: in the store itself, in the cache, or where somebody wants them."""

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
    """A store that notes what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read, and note what."""
        self.read.append(key.rpartition("/")[2])
        return super().fill(key, buffer, start)


@pytest.fixture
def far(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegisteredModel:
    """A model with one version in a store that is no folder, and an empty cache."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    model = RegisteredModel(CountingStore(), "coder")
    model.publish(folder, origin(), dtype="float32")
    return model


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without the registry's own."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def reads(model: RegisteredModel) -> list[str]:
    """What was read of the store since the last look."""
    assert isinstance(model.store, CountingStore)
    seen, model.store.read = model.store.read, []
    return seen


def test_a_fetched_version_is_what_was_published(model: RegisteredModel, publish: Publish, folder: Path) -> None:
    """The files, byte for byte, with the manifest beside them; told in the bytes that were promised."""
    version = publish()
    told: list[int] = []
    fetched = model.fetch(version, advance=told.append)
    assert contents(fetched) == contents(folder)
    assert (fetched / "manifest.json").read_bytes() == model.store.get(version.manifest)
    assert sum(told) == version.bytes


def test_a_folder_store_is_read_where_it_lies(model: RegisteredModel, publish: Publish, tmp_path: Path) -> None:
    """No second copy of the weights is made; from a bucket one is, in the cache, by the manifest's digest."""
    version = publish()
    fetched = model.fetch(version)
    if isinstance(model.store, FolderStore):
        assert fetched == tmp_path / "store" / Path(version.manifest).parent
        assert not (tmp_path / "cache").exists()
    else:
        assert fetched == tmp_path / "cache/models" / version.sha256


def test_a_cached_version_is_verified_and_not_brought_again(far: RegisteredModel) -> None:
    """The second fetch reads the cache, not the store."""
    version = far.find("coder")
    first = far.fetch(version)
    assert sorted(set(reads(far))) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    told: list[int] = []
    assert far.fetch(version, advance=told.append) == first
    assert reads(far) == []
    assert sum(told) == version.bytes


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "config.json"])
def test_a_damaged_copy_in_the_cache_is_brought_anew(far: RegisteredModel, folder: Path, name: str) -> None:
    """A flipped byte on this machine is found like one in the store; the store has the truth."""
    version = far.find("coder")
    fetched = far.fetch(version)
    data = bytearray((fetched / name).read_bytes())
    data[-1] ^= 1
    (fetched / name).write_bytes(data)
    assert contents(far.fetch(version)) == contents(folder)
    assert list(far.verify(version))


def test_what_came_into_the_cache_by_itself_is_not_loaded(far: RegisteredModel) -> None:
    """An additional file beside cached weights is as bad as one in the store."""
    version = far.find("coder")
    fetched = far.fetch(version)
    (fetched / "pytorch_model.bin").write_bytes(b"x")
    far.fetch(version)
    assert not (fetched / "pytorch_model.bin").exists()


def test_a_fetch_that_breaks_off_leaves_nothing(far: RegisteredModel, tmp_path: Path) -> None:
    """A store that fails midway: no folder, and no part of one."""

    class Failing(MemoryStore):
        """A store that cannot read weights."""

        def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
            if key.endswith(".safetensors"):
                raise StoreError(f"{key}: cannot be read")
            return super().fill(key, buffer, start)

    assert isinstance(far.store, MemoryStore)
    store = Failing()
    store.objects = far.store.objects
    model = RegisteredModel(store, "coder")
    with pytest.raises(StoreError, match="cannot be read"):
        model.fetch(model.find("coder"))
    assert list((tmp_path / "cache/models").iterdir()) == []


def meet(patch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Have somebody else do something while the next version is brought."""
    read = VersionReader.read

    def slow(self: VersionReader, name: str) -> Iterator[memoryview]:
        yield from read(self, name)
        if name == "tokenizer.json":
            patch.setattr(VersionReader, "read", read)
            other()

    patch.setattr(VersionReader, "read", slow)


def test_what_appears_meanwhile_is_not_trusted(far: RegisteredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that somebody else made in the cache while this one was brought, and that is not sound, is refused."""
    version = far.find("coder")
    target = local_cache.cached(version)

    def spoil() -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")

    meet(monkeypatch, spoil)
    with pytest.raises(DamageError, match=r"coder@1: manifest\.json is missing"):
        far.fetch(version)


def test_of_two_who_fetch_at_once_both_have_it(
    far: RegisteredModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's folder appeared while this one was brought: it is verified and taken."""
    version = far.find("coder")
    meet(monkeypatch, lambda: RegisteredModel(far.store, "coder").fetch(version))
    fetched = far.fetch(version)
    assert contents(fetched) == contents(folder)
    assert [path.name for path in fetched.parent.iterdir()] == [version.sha256]


def test_a_version_is_brought_where_somebody_wants_it(model: RegisteredModel, publish: Publish, tmp_path: Path) -> None:
    """To a new folder, or an empty one; what is there and sound is taken; anything else is left alone."""
    version = publish()
    wanted = tmp_path / "here/model"
    assert model.fetch(version, wanted) == wanted
    assert model.fetch(version, wanted) == wanted
    (tmp_path / "empty").mkdir()
    assert contents(model.fetch(version, tmp_path / "empty")) == contents(wanted)
    (wanted / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds something else than coder@1"):
        model.fetch(version, wanted)
    assert (wanted / "config.json").read_text() == "{}"


def test_a_cache_that_cannot_be_written_is_named(far: RegisteredModel, tmp_path: Path) -> None:
    """The message has the folder and the cause."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match=r"coder@1: cannot be written to .*cache"):
        far.fetch(far.find("coder"))


def test_the_cache_is_the_users_by_default(
    far: RegisteredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HEADWAY_CACHE`, else what the desktop's standard says, else below the home."""
    version = far.find("coder")
    monkeypatch.delenv("HEADWAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert local_cache.cached(version) == tmp_path / "xdg/headway/models" / version.sha256
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert local_cache.cached(version) == tmp_path / "home/.cache/headway/models" / version.sha256
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
