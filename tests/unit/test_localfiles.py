"""Local files are replaced whole, locked against other processes, and cached where the environment says."""

import threading
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.localfiles import cache_folder, locked, replacing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The old bytes are there until the block has ended."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A writer that fails half-way changes nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"ne")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_file_is_never_readable_by_others(tmp_path: Path) -> None:
    """Its permissions hold from the first byte."""
    with replacing(tmp_path / "file", mode=0o600):
        assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_a_second_holder_of_a_lock_waits(tmp_path: Path) -> None:
    """It enters its block after the first has left its own."""
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with locked(tmp_path / "folder" / "lock"):
            order.append("second")

    with locked(tmp_path / "folder" / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        started.wait()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_cache_needs_no_home_where_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HEADWAY_CACHE` is enough; without it, a user without a home is told about it."""

    def no_home(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("HEADWAY_CACHE")
    with pytest.raises(UsageError, match="HEADWAY_CACHE"):
        cache_folder()
