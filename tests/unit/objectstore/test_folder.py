"""Behaviour that only folder stores have. What all stores share is tested in tests/contract."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from headway.errors import DamageError, ExistingObject, MissingObject, StoreError, UsageError
from headway.objectstore import open_store, read_document
from headway.objectstore.folder import FolderStore
from headway.objectstore.protocol import WHOLE_BYTES, UnfinishedWrite

SECRET = b"the secret"
HALF = "0123456789abcdef" * 2
"""Name of a temporary file."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the store, with a file that nobody may read or delete through it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A store with one object."""
    store = FolderStore(tmp_path / "store")
    store.put("a/object", [b"x"])
    return store


def test_listing_is_sorted_and_starts_after(tmp_path: Path) -> None:
    """Keys come in order, below a prefix, after a key, without unfinished writes."""
    store = FolderStore(tmp_path)
    for key in ("x/2", "x/10", "x/1/z", "y"):
        store.put(key, [b""])
    (tmp_path / ".incoming" / "half").write_bytes(b"half")
    assert list(store.list("x/")) == ["x/1/z", "x/10", "x/2"]
    assert list(store.list("x/", after="x/10")) == ["x/2"]
    assert list(store.list("")) == ["x/1/z", "x/10", "x/2", "y"]


def test_a_writer_killed_midway_leaves_no_object(tmp_path: Path) -> None:
    """SIGKILL between two parts of a put: readers see nothing."""
    script = (
        "import os, signal, sys\n"
        "from headway.objectstore.folder import FolderStore\n"
        "def parts():\n"
        "    yield b'first'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "FolderStore(sys.argv[1]).put('key', parts())\n"
    )
    writer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert writer.returncode == -signal.SIGKILL
    store = FolderStore(tmp_path)
    assert list(store.list("")) == []
    with pytest.raises(MissingObject, match="key"):
        store.get("key")


def test_deleting_twice_is_no_error_and_removes_empty_folders(tmp_path: Path) -> None:
    """Deleting an object also removes empty folders, and can be repeated."""
    store = FolderStore(tmp_path)
    store.put("a/b/c", [b"x"])
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert not (tmp_path / "a").exists()


def test_a_key_cannot_leave_the_store(tmp_path: Path) -> None:
    """Keys with dots-dots or a leading slash are refused."""
    for key in (
        "../x",
        "/etc/passwd",
        "a/../../x",
        "",
        "a//b",
        "a/./b",
        "a\0b",
        "a\nb",
        "\udc80",
        "x" * 1025,
        ".incoming/x",
    ):
        with pytest.raises(UsageError, match="not an object key"):
            FolderStore(tmp_path).put(key, [b""])


def test_a_failed_write_names_object_store_and_cause(tmp_path: Path) -> None:
    """A store whose root is a file says which object could not be written, and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"some/key: cannot be written to .*file: Not a directory"):
        FolderStore(tmp_path / "file").put("some/key", [b""])


def test_a_url_names_a_folder(tmp_path: Path) -> None:
    """A file URL and a path open the same store; an unknown scheme is refused by name."""
    assert open_store(tmp_path.as_uri()).url == open_store(str(tmp_path)).url
    with pytest.raises(UsageError, match="ftp://x"):
        open_store("ftp://x")


def test_a_linked_file_is_no_object(store: FolderStore, outside: Path) -> None:
    """It is not read, listed or followed by a write or a deletion; it is a stray."""
    (store.root / "a/link").symlink_to(outside / "secret")
    for read in (store.get, store.size, lambda key: store.fill(key, memoryview(bytearray(9)))):
        with pytest.raises(MissingObject, match="a/link: no such object"):
            read("a/link")
    assert list(store.get_all(["a/link", "a/object"], 9)) == [None, b"x"]
    assert list(store.sizes("")) == [("a/object", 1)]
    assert list(store.strays("")) == [("a/link", "is a link, and a store has none")]
    store.delete("a/link")
    assert (store.root / "a/link").is_symlink()
    with pytest.raises(ExistingObject):
        store.create("a/link", b"y")
    store.put("a/link", [b"mine"])
    assert (store.get("a/link"), (outside / "secret").read_bytes()) == (b"mine", SECRET)


def test_nothing_is_reached_through_a_linked_folder(store: FolderStore, outside: Path) -> None:
    """Below it no object is read, listed, written or deleted."""
    (store.root / "linked").symlink_to(outside)
    with pytest.raises(MissingObject):
        store.get("linked/secret")
    assert list(store.get_all(["a/object", "linked/secret", "nowhere/x", "a/object"], 9)) == [b"x", None, None, b"x"]
    for prefix in ("", "linked", "linked/", "linked/s"):
        assert "linked/secret" not in list(store.list(prefix))
    assert list(store.folders("")) == ["a"]
    assert list(store.folders("linked/")) == []
    assert list(store.strays("", deep=False)) == [("linked", "is a link, and a store has none")]
    with pytest.raises(StoreError, match="linked/secret: cannot be written to"):
        store.put("linked/secret", [b"y"])
    with pytest.raises(StoreError, match="linked/new: cannot be written to"):
        store.create("linked/new", b"y")
    store.delete("linked/secret")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == SECRET


def test_an_object_that_cannot_be_read_is_named(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among many that are read together, too."""

    def refuse(name: str, _folder: int) -> int:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("headway.objectstore.confined.open_file", refuse)
    for read in (store.get, lambda key: list(store.get_all([key], 9))):
        with pytest.raises(StoreError, match=r"a/object: cannot be read in .*: Permission denied"):
            read("a/object")


def test_the_root_itself_may_be_a_link(store: FolderStore, tmp_path: Path) -> None:
    """People name a store by whatever path leads to it."""
    (tmp_path / "link").symlink_to(store.root)
    linked = FolderStore(tmp_path / "link")
    linked.put("b", [b"y"])
    assert list(store.list("")) == list(linked.list("")) == ["a/object", "b"]
    assert linked.get("a/object") == b"x"


def test_unfinished_writes_are_those_of_this_store(store: FolderStore, outside: Path) -> None:
    """What else lies among the temporary files, or behind a link in their place, is never deleted."""
    incoming = store.root / ".incoming"
    (incoming / HALF).write_bytes(b"half")
    (incoming / "notes").write_bytes(b"mine")
    (incoming / "folder").mkdir()
    (incoming / HALF[::-1]).symlink_to(outside / "secret")
    assert [write.key for write in store.unfinished()] == [f".incoming/{HALF}"]
    assert [place for place, _ in store.strays("")] == [
        f".incoming/{HALF[::-1]}",
        ".incoming/folder",
        ".incoming/notes",
    ]
    for name in ("notes", "../a/object", HALF):
        store.abort(UnfinishedWrite(name, 0.0, name))
    assert sorted(path.name for path in incoming.iterdir()) == sorted(["notes", "folder", HALF[::-1]])
    assert store.get("a/object") == b"x"


def test_a_linked_folder_of_temporary_files_is_not_entered(store: FolderStore, outside: Path) -> None:
    """Nothing there is an unfinished write, and no write goes there."""
    (store.root / ".incoming").rmdir()
    (store.root / ".incoming").symlink_to(outside)
    (outside / HALF).write_bytes(SECRET)
    assert list(store.unfinished()) == []
    assert [place for place, _ in store.strays("")] == [".incoming"]
    store.abort(UnfinishedWrite(f".incoming/{HALF}", 0.0, HALF))
    assert (outside / HALF).read_bytes() == SECRET
    with pytest.raises(StoreError, match="a/b: cannot be written"):
        store.put("a/b", [b"y"])
    assert len(list(outside.iterdir())) == 2


def test_a_file_in_the_place_of_temporary_files_is_no_object(store: FolderStore) -> None:
    """It is a stray, and no key."""
    (store.root / ".incoming").rmdir()
    (store.root / ".incoming").write_bytes(b"mine")
    assert list(store.list("")) == list(store.list("a")) == ["a/object"]
    assert [place for place, _ in store.strays("")] == [".incoming"]


def test_what_is_no_regular_file_is_no_object(store: FolderStore) -> None:
    """A pipe, a socket, a device and a folder are not waited for, read or listed."""
    os.mkfifo(store.root / "a/pipe")
    (store.root / "a/device").symlink_to("/dev/zero")
    (store.root / "a/folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(store.root / "a/socket"))
        for name in ("pipe", "device", "folder", "socket"):
            for read in (store.get, store.size):
                with pytest.raises(MissingObject, match=f"a/{name}: no such object"):
                    read(f"a/{name}")
            store.delete(f"a/{name}")
    assert list(store.list("a/")) == ["a/object"]
    assert [place for place, _ in store.strays("a/")] == ["a/device", "a/pipe", "a/socket"]


def test_a_name_that_is_no_key_is_not_listed(store: FolderStore) -> None:
    """Bytes that are no UTF-8 and control characters would end in errors where the key is used or printed."""
    for name in (b"\xff", b"a\nb", b"\x1b[31m"):
        Path(os.fsdecode(os.fsencode(store.root / "a") + b"/" + name)).write_bytes(b"")
    assert list(store.list("a/")) == ["a/object"]
    assert [problem for _, problem in store.strays("")] == ["has a name that is no key"] * 3


def test_folders_within_folders_end(store: FolderStore) -> None:
    """A listing goes no deeper than any key does."""
    (store.root / "/".join(["deep"] * 60)).mkdir(parents=True)
    assert list(store.list("")) == ["a/object"]
    [(place, problem)] = store.strays("")
    assert place.count("/") < 20
    assert problem == "is a folder where none belongs"


def test_a_read_has_a_limit_whatever_the_file_says(store: FolderStore) -> None:
    """A sparse file of 50 GB is refused by its length; a part of it is read."""
    with (store.root / "a/sparse").open("wb") as file:
        file.truncate(50_000_000_000)
    with pytest.raises(DamageError, match=f"a/sparse: is longer than {WHOLE_BYTES:,} bytes"):
        store.get("a/sparse")
    with pytest.raises(DamageError, match="a/sparse: is longer than 1,000 bytes"):
        read_document(store, "a/sparse", 1000)
    assert store.get("a/sparse", 7, 3) == bytes(3)
    assert list(store.get_all(["a/sparse"], 5)) == [bytes(5)]
    assert read_document(store, "a/object", 1) == b"x"
