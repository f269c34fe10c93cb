"""Behaviour that only folder stores have. What all stores share is tested in tests/contract."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headway.errors import MissingObject, StoreError, UsageError
from headway.objectstore import open_store
from headway.objectstore.folder import FolderStore


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
    for key in ("../x", "/etc/passwd", "a/../../x", ""):
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
