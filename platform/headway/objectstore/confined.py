"""Files and folders below a root. No link leads out of it: each step opens one name (openat) and follows none."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MAX_DEPTH = 16
"""Folders within each other that are listed. Keys of stores have at most six."""
STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for a file that may turn out to be a pipe or a device: opening one must not wait."""
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class FolderEntry:
    """Something that a folder holds."""

    path: str
    """Its names below the root, joined by `/`."""
    size: int = 0
    """Length of a regular file [bytes]."""
    modified: float = 0.0
    """Time of the last write to a regular file [s since 1970]."""
    problem: str = ""
    """Why it is no object; empty for a regular file."""


@contextmanager
def open_folders(root: Path, names: Sequence[str], *, create: bool = False) -> Iterator[list[int]]:
    """Descriptors of `root` and of each folder on the way down `names`, made if they are missing and `create` is set.

    The root itself may be a link.

    Raises:
        FileNotFoundError: a folder is missing.
        NotADirectoryError: something on the way is a link, or no folder.
    """
    descriptors: list[int] = []
    try:
        if create:
            with suppress(FileExistsError):
                root.mkdir(parents=True)
        descriptors.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in names:
            descriptors.append(_step(name, descriptors[-1], create=create))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def open_file(name: str, folder: int) -> int:
    """A descriptor for reading the regular file `name` in a folder.

    Raises:
        FileNotFoundError: there is none: nothing, a link, a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(name, READ, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # a link, a socket, a folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return descriptor


def first_bytes(name: str, folder: int, limit: int) -> bytes | None:
    """The first `limit` bytes of the regular file `name` in a folder; None if there is none."""
    try:
        descriptor = open_file(name, folder)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(min(limit, os.fstat(descriptor).st_size))


def file_size(name: str, folder: int) -> int:
    """Length of the regular file `name` in a folder [bytes].

    Raises:
        FileNotFoundError: there is none: nothing, a link, a folder, a pipe or a device.
    """
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return status.st_size


def walk(folder: int, path: str, depth: int = MAX_DEPTH, *, deep: bool = True) -> Iterator[FolderEntry]:
    """What lies below a folder, in no order; `path` starts the paths. Enters folders if it is `deep`, and no links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            place = path + entry.name
            if problem := _problem(entry, depth):
                yield FolderEntry(place, problem=problem)
            elif not entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):  # deleted after it was listed
                    status = entry.stat(follow_symlinks=False)
                    yield FolderEntry(place, status.st_size, status.st_mtime)
            elif deep:
                yield from _walk_into(entry.name, folder, place, depth)


def folder_names(folder: int) -> list[str]:
    """Names of the folders in a folder that are no links, in order."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _walk_into(name: str, folder: int, place: str, depth: int) -> Iterator[FolderEntry]:
    try:
        descriptor = os.open(name, STEP, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):  # deleted or replaced after it was listed
        return
    except OSError as error:
        yield FolderEntry(place, problem=f"cannot be listed: {error.strerror}")
        return
    try:
        yield from walk(descriptor, f"{place}/", depth - 1)
    finally:
        os.close(descriptor)


def _problem(entry: os.DirEntry[str], depth: int) -> str:
    """Why an entry is neither an object nor a folder of objects; empty if it is one."""
    if not entry.name.isprintable():
        return "has a name that is no key"
    if entry.is_symlink():
        return "is a link, and a store has none"
    if entry.is_dir(follow_symlinks=False):
        return "" if depth else "is a folder where none belongs"
    return "" if entry.is_file(follow_symlinks=False) else "is no regular file"


def _step(name: str, folder: int, *, create: bool) -> int:
    try:
        try:
            return os.open(name, STEP, dir_fd=folder)
        except FileNotFoundError:
            if not create:
                raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        return os.open(name, STEP, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:  # what some systems say of a link
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from error
        raise
