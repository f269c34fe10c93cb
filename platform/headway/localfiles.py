"""Local files: atomic replacement, durability, lock files, hashes and the cache folder."""

import fcntl
import grp
import hashlib
import os
import pwd
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO

from headway.errors import HeadwayError, UsageError

CACHE_VARIABLE = "HEADWAY_CACHE"
"""Environment variable for the folder of all cached files."""
LOCK_SECONDS = 30.0
"""Longest wait for a lock, unless its caller says otherwise [s]."""
POLL_SECONDS = 0.05
"""Interval of tries to take a lock [s]."""
MAX_HOLDER_BYTES = 200
"""Longest name of a lock's holder that is read from its file [bytes]."""
WRITABLE_BY_OTHERS = 0o022


@contextmanager
def replacing(path: Path, *, durable: bool = True, mode: int = 0o666, like_old: bool = False) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` atomically when the block ends. After an error nothing has changed.

    A `durable` file survives a power cut. `mode` is the permissions of the new file, before the umask. With `like_old`
    it gets owner, group and permissions of the old file, if there is one, but only its owner may write to it.

    Raises:
        OSError: it cannot be written; names `path`, which `write` and `fsync` do not know.
        UsageError: it is to be like the old one, which is a link, not a file, or another user's.
    """
    old = _replaceable(path) if like_old else None
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b") as file:
            if old:
                _imitate(file, path, old)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.filename in {None, os.fspath(partial)}:
            error.filename = os.fspath(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush the bytes of a file, or the names in a folder, to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold an exclusive lock on `path` during the block. Other processes wait, up to `seconds`. The file remains.

    Whoever can open a lock file can hold it, so it must belong to this user, and only this user has access to it.

    Raises:
        UsageError: the file is a link, not a file, or another user's.
        HeadwayError: another process still holds the lock; names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open_lock(path) as lock:
        deadline = time.monotonic() + seconds
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                holder = _holder(lock)
                raise HeadwayError(f"{path} is locked by {holder} for more than {seconds:.0f} s; end it, or try again")
            time.sleep(POLL_SECONDS)
        with suppress(OSError):  # on a full disk the lock is held without a name
            os.ftruncate(lock.fileno(), 0)
            os.pwrite(lock.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield


def private_folder(path: Path, root: Path) -> Path:
    """`path`, a folder below `root`, after creating it: for files that run code when they are loaded, such as pickles.

    Raises:
        UsageError: `path`, `root` or a folder between them belongs to another user, or other users may write to it.
        OSError: it cannot be created.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in (path, *(parent for parent in path.parents if parent == root or root in parent.parents)):
        status = folder.stat()
        if status.st_uid not in {os.geteuid(), 0}:
            problem = f"belongs to {_user(status.st_uid)}"
        elif _open_to_others(status) and (folder == path or not status.st_mode & stat.S_ISVTX):
            problem = "is writable by other users"
        else:
            continue
        raise UsageError(
            f"{folder} {problem}, who could put files there that run code when they are loaded; "
            f"set {CACHE_VARIABLE} to a folder that only you can write to"
        )
    return path


def _open_to_others(status: os.stat_result) -> bool:
    """Whether others than the owner, root and the owner's private group may write to a folder."""
    with suppress(KeyError):
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
        if owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and {*group.gr_mem} <= {owner.pw_name}:
            return bool(status.st_mode & 0o002)
    return bool(status.st_mode & WRITABLE_BY_OTHERS)


def _replaceable(path: Path) -> os.stat_result | None:
    """The status of a file of this user; None if there is no file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    _check_own_file(path, status)
    return status


def _imitate(file: IO[bytes], path: Path, old: os.stat_result) -> None:
    """Give a new file the owner, group and permissions of `path`, without write access for others."""
    try:
        os.fchown(file.fileno(), old.st_uid, old.st_gid)
    except PermissionError:
        raise UsageError(
            f"{path} has a group that you are not in, so it cannot be replaced; run this as root"
        ) from None
    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) & ~WRITABLE_BY_OTHERS)


def _check_own_file(path: Path, status: os.stat_result) -> None:
    """Refuse a file that another user could change, and anything that is not a file."""
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is a link, or not a file; move it away")
    if os.geteuid() not in {status.st_uid, 0}:
        raise UsageError(f"{path} belongs to {_user(status.st_uid)}; run this as that user, or move the file away")


def _user(number: int) -> str:
    """The name of a user, or its number if it has none."""
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _open_lock(path: Path) -> IO[bytes]:
    """Open a lock file of this user, to which nobody else has access."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
    except OSError:
        if path.is_symlink() or path.exists():
            _check_own_file(path, path.lstat())
        raise
    try:
        _check_own_file(path, os.fstat(lock.fileno()))
        os.fchmod(lock.fileno(), 0o600)
    except BaseException:
        lock.close()
        raise
    return lock


def _try_lock(lock: IO[bytes]) -> bool:
    """Take a lock, unless another process holds it."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _holder(lock: IO[bytes]) -> str:
    """The process that holds a lock, as it wrote itself into the file."""
    return os.pread(lock.fileno(), MAX_HOLDER_BYTES, 0).decode(errors="replace") or "another process"


def local_path(text: str | Path) -> Path:
    """The path that a person wrote, in which `~` is the home folder.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: this user has no home folder; write the whole path") from error


def cache_folder() -> Path:
    """The folder of all cached files: `HEADWAY_CACHE`, else `headway` in the user's cache folder.

    Raises:
        UsageError: the variable is not set, and the user has no home folder.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return local_path(chosen).absolute()
    try:
        return local_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").absolute() / "headway"
    except UsageError as error:
        raise UsageError(f"this user has no home folder for the cache; set {CACHE_VARIABLE} to a folder") from error


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; links to one are followed. A pipe or a device could be read without end.

    Raises:
        UsageError: it is something else.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path}: is no regular file")
    return os.fdopen(descriptor, "rb")


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file that has at most `limit` of them.

    Raises:
        UsageError: it is longer, or something else.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{path} is longer than {limit:,} bytes, which none of its kind is")
    return data


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
