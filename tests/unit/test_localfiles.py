"""Local files are replaced whole, locked against other processes, and cached where the environment says."""

import os
import threading
from pathlib import Path

import pytest
from tests.unit.full_disk import short_files

from headway.errors import HeadwayError, UsageError
from headway.localfiles import (
    cache_folder,
    local_path,
    locked,
    private_folder,
    replacing,
)


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

    def no_home(path: Path) -> Path:
        if path.parts[0] != "~":
            return path
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("HEADWAY_CACHE")
    with pytest.raises(UsageError, match="HEADWAY_CACHE"):
        cache_folder()


def as_user(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Run as an ordinary user, who owns none of the paths."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert all(path.lstat().st_uid == os.getuid() for path in paths)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anywhere else it is a name; a user who has no home is told."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/a") == tmp_path / "a"
    assert local_path("a/~") == Path("a/~")
    with pytest.raises(UsageError, match="~nobody-here/a: this user has no home folder"):
        local_path("~nobody-here/a")


@pytest.mark.parametrize("size", [2000, 2**20], ids=["flush", "write"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, size: int) -> None:
    """Whether it is noticed at once or at the end; the old file is whole, and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="File too large") as error, short_files(1000), replacing(path) as file:
        file.write(b" " * size)
    assert error.value.filename == str(path)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """Not the name of the file that would have replaced it."""
    with pytest.raises(FileNotFoundError) as error, replacing(tmp_path / "none" / "file"):
        pass
    assert error.value.filename == str(tmp_path / "none" / "file")


def test_nobody_but_its_owner_can_hold_a_lock(tmp_path: Path) -> None:
    """A lock file is for its owner alone; one that others could open before is closed to them."""
    path = tmp_path / "lock"
    for ready in (False, True):
        if ready:
            path.chmod(0o666)
        with locked(path):
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_for_long_names_its_holder(tmp_path: Path) -> None:
    """The wait has an end, and the error says which process to look at."""
    with (
        locked(tmp_path / "lock"),
        pytest.raises(HeadwayError, match=f"locked by process {os.getpid()} on .* for more than 0 s"),
        locked(tmp_path / "lock", seconds=0.0),
    ):
        pass
    with locked(tmp_path / "lock", seconds=0.0):
        pass


def test_a_lock_is_never_taken_through_a_link_or_on_anything_but_a_file(tmp_path: Path) -> None:
    """The target of a link is neither created nor changed, and a pipe does not hang."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "folder", "pipe"):
        with pytest.raises(UsageError, match=f"{name} is a link, or not a file"), locked(tmp_path / name):
            pass
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "new").exists()


def test_a_lock_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That user could hold it for ever; the message names the user."""
    path = tmp_path / "lock"
    path.touch(0o666)
    as_user(monkeypatch, path)
    with pytest.raises(UsageError, match=r"lock belongs to user \w+"), locked(path):
        pass


def test_a_file_like_the_old_one_is_closed_to_other_writers(tmp_path: Path) -> None:
    """It keeps who may read it, and loses who else may write to it."""
    path = tmp_path / "file"
    path.touch()
    for before, after in ((0o666, 0o644), (0o660, 0o640), (0o600, 0o600)):
        path.chmod(before)
        with replacing(path, mode=0o600, like_old=True):
            pass
        assert path.stat().st_mode & 0o777 == after


def test_a_link_or_another_users_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changes, and nothing is left behind."""
    path = tmp_path / "file"
    (tmp_path / "link").symlink_to(path)
    path.write_text("theirs")
    with pytest.raises(UsageError, match="is a link"), replacing(tmp_path / "link", like_old=True):
        pass
    as_user(monkeypatch, path)
    with pytest.raises(UsageError, match="belongs to user"), replacing(path, like_old=True):
        pass
    assert path.read_text() == "theirs"
    assert {each.name for each in tmp_path.iterdir()} == {"file", "link"}


@pytest.mark.parametrize("place", [".", "inner", "inner/leaf"])
def test_a_folder_for_code_is_writable_by_its_owner_alone(tmp_path: Path, place: str) -> None:
    """So are the folders above it, up to the root of the cache."""
    root = tmp_path / "cache"
    assert private_folder(root / "inner" / "leaf", root).stat().st_mode & 0o077 == 0
    (root / place).chmod(0o777)
    with pytest.raises(UsageError, match=r"is writable by other users.*set HEADWAY_CACHE"):
        private_folder(root / "inner" / "leaf", root)


def test_a_folder_in_which_nobody_can_rename_others_files_may_hold_one_for_code(tmp_path: Path) -> None:
    """As in `/tmp`: the sticky bit keeps the folder below it its owner's."""
    root = tmp_path / "cache"
    private_folder(root / "leaf", root)
    root.chmod(0o1777)
    assert private_folder(root / "leaf", root)


def test_a_folder_of_another_user_takes_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could put pickles there; a folder of root is as safe as the machine."""
    root = tmp_path / "cache"
    private_folder(root / "leaf", root)
    owned = (root / "leaf").stat()
    monkeypatch.setattr(Path, "stat", lambda _: os.stat_result((0o40700, *owned[1:4], 54321, *owned[5:])))
    with pytest.raises(UsageError, match="belongs to user 54321"):
        private_folder(root / "leaf", root)
