"""Files and folders on this machine: replaced whole, made durable, locked, cached."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from headway.errors import UsageError

CACHE_VARIABLE = "HEADWAY_CACHE"
"""Environment variable: the folder of everything that Headway caches."""


@contextmanager
def replacing(path: Path, *, durable: bool = True, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file that takes the name `path`, whole, when the block ends without an error; else nothing changes.

    `durable` files survive a power cut. `mode` holds the permissions of the new file, before the umask.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` during the block; other processes wait. The file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """The folder of everything that Headway caches: `HEADWAY_CACHE`, else `headway` in the user's cache folder.

    Raises:
        UsageError: the variable is not set, and this user has no home.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "headway"
    except RuntimeError as error:
        raise UsageError(f"this user has no home folder to cache in; name a folder in {CACHE_VARIABLE}") from error
