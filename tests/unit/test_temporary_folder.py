"""Temporary folders are deleted at their end, or by the next process; never those of a process that lives."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.temporary_folder import MARK, SOCKET_PATH_BYTES, short_parent, temporary_folder

HOLD = """
import sys
from headway.temporary_folder import temporary_folder
with temporary_folder() as folder:
    (folder / "below").mkdir()
    (folder / "below" / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def holder(place: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process with a temporary folder of its own, and the folder."""
    command, environment = [sys.executable, "-c", HOLD], os.environ | {"TMPDIR": str(place)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_folder_is_private_and_deleted_at_the_end(place: Path) -> None:
    """Whatever is in it."""
    with temporary_folder() as folder:
        (folder / "below").mkdir()
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(place.iterdir())


def test_the_folder_of_a_process_that_was_killed_is_deleted_by_the_next_one(place: Path) -> None:
    """Not before it is killed."""
    with holder(place) as (process, folder):
        with temporary_folder():
            assert (folder / "below" / "file").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert folder.exists()
        with temporary_folder() as own:
            assert list(place.iterdir()) == [own]


@pytest.mark.parametrize("name", ["headway-tests-12345678", "headway-1234", "other-12345678", "headway-12345678"])
def test_a_folder_of_somebody_else_is_kept(place: Path, name: str) -> None:
    """One that has another name, or that lacks the mark of those that are made here."""
    (place / name).mkdir()
    if name != "headway-12345678":
        (place / name / MARK).touch()
    with temporary_folder():
        pass
    assert [each.name for each in place.iterdir()] == [name]


def test_a_link_is_not_followed(place: Path) -> None:
    """It could lead to a folder that somebody needs."""
    (place / "precious").mkdir()
    (place / "precious" / MARK).touch()
    (place / "headway-12345678").symlink_to(place / "precious")
    with temporary_folder():
        pass
    assert (place / "precious" / MARK).exists()


def test_a_temporary_folder_has_room_for_sockets(place: Path) -> None:
    """The user's own, unless its path is too long."""
    room = SOCKET_PATH_BYTES - len(str(place))
    assert short_parent(room) == place
    assert short_parent(room + 1) == Path("/tmp")  # noqa: S108
    with pytest.raises(UsageError, match="a writable folder whose path has at most 3 bytes"):
        short_parent(SOCKET_PATH_BYTES - 3)
