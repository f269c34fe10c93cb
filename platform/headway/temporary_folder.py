"""Temporary folders: each is locked by its process as long as that lives, so the next process can delete dead ones.

A lock on the folder itself also keeps systemd-tmpfiles from cleaning it up.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headway.errors import UsageError

PREFIX = "headway-"
"""Start of the folders' names."""
MARK = ".headway"
"""Name of a file that shows that a folder was made here."""
NAME = re.compile(re.escape(PREFIX) + r"\w{8}")
"""Names of the folders."""
SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket [bytes]; see unix(7)."""
PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - sockets go into private folders below
"""Folders for temporary files where `TMPDIR` has too long a path."""


@contextmanager
def temporary_folder(room: int | None = None, *, parent: Path | None = None) -> Iterator[Path]:
    """A new folder of this process in `parent`, or where temporary files are; it is deleted at the end of the block.

    If the process is killed, the next one that makes a folder in the same place deletes it. With `room`, the path of a
    socket may be so many bytes longer than that of the place, even where the path of `TMPDIR` is too long for it.

    Raises:
        UsageError: no folder for temporary files is short enough and writable.
    """
    if parent is None:
        parent = Path(tempfile.gettempdir()) if room is None else short_parent(room)
    delete_dead_folders(parent)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def short_parent(room: int) -> Path:
    """A folder for temporary files in which the path of a socket may be `room` bytes longer: `TMPDIR`'s if possible.

    Raises:
        UsageError: no temporary folder is short enough and writable.
    """
    for folder in (tempfile.gettempdir(), *PARENTS):
        if len(os.fsencode(folder)) + room <= SOCKET_PATH_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise UsageError(f"set TMPDIR to a writable folder whose path has at most {SOCKET_PATH_BYTES - room} bytes")


def delete_dead_folders(parent: Path) -> None:
    """Delete the folders of this user in `parent` whose processes were killed."""
    with suppress(OSError):
        for folder in [folder for folder in parent.iterdir() if NAME.fullmatch(folder.name)]:
            with suppress(OSError):  # it is another user's, or another process deletes it
                _delete_if_dead(folder)


def _delete_if_dead(folder: Path) -> None:
    """Delete a folder that nobody holds and that was made here.

    Raises:
        OSError: it cannot be opened, or a process holds it.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        is_own = os.fstat(lock).st_uid == os.geteuid()
        if is_own and stat.S_ISREG(os.stat(MARK, dir_fd=lock, follow_symlinks=False).st_mode):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks; without a mark, nobody deletes the folder
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / MARK).touch(mode=0o600)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, lock
