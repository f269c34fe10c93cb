"""A folder as an object store: the built-in alternative to S3, with the same guarantees.

An object is written to a temporary file, made durable, and then linked or moved to its name, so readers see all of it
or nothing. Create-only writes are hard links, which the file system refuses if the name exists.

Objects are regular files. Links, pipes and devices below the root are none: they are not read, listed or deleted.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BufferedReader
from itertools import groupby
from pathlib import Path

from headway.errors import ExistingObject, MissingObject, StoreError, UsageError
from headway.objectstore import confined
from headway.objectstore.confined import FolderEntry, open_folders
from headway.objectstore.object_key import is_key, key_names
from headway.objectstore.protocol import WHOLE_BYTES, Buffer, UnfinishedWrite, too_long

INCOMING = ".incoming"
"""Folder of the temporary files. No key starts with it."""
TEMPORARY = re.compile(r"[0-9a-f]{32}")
"""Names of the temporary files. Others in their folder are not ours."""
MAX_TRIES = 100
"""Attempts to place a file whose folder concurrent deletes remove."""
Place = Callable[[str, int, str, int], None]
"""Places a temporary file (name and folder) under the name of an object (name and folder)."""


class FolderStore:
    """Objects as files below `root`."""

    readers = 4

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.url = self.root.as_uri()

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object, replacing an existing one."""
        self._write(key, parts, _replace)

    def create(self, key: str, data: Buffer) -> None:
        """Write an object unless the key exists."""
        try:
            self._write(key, [data], _link)
        except FileExistsError:
            raise ExistingObject(f"{key}: exists already in {self.url}") from None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of it."""
        with self._open(key) as file:
            rest = max(0, os.fstat(file.fileno()).st_size - start)
            if length is None and rest > WHOLE_BYTES:
                raise too_long(key, WHOLE_BYTES)
            file.seek(start)
            return file.read(rest if length is None else min(length, rest))

    def get_all(self, keys: Iterable[str], limit: int) -> Iterator[bytes | None]:
        """Read small objects, in the order of `keys`. Opens the folder of neighbours once."""
        for folders, neighbours in groupby(map(_names, keys), key=lambda names: names[:-1]):
            yield from self._get_neighbours(folders, [names[-1] for names in neighbours], limit)

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object from `start` on into `buffer`."""
        with self._open(key) as file:
            file.seek(start)
            return file.readinto(buffer)

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        *folders, name = _names(key)
        with self._errors(key, "looked up"), open_folders(self.root, folders) as opened:
            return confined.file_size(name, opened[-1])

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix`, sorted as S3 sorts them."""
        yield from sorted(entry.path for entry in self._entries(prefix) if not entry.problem and entry.path > after)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix`, sorted as S3 sorts them, with lengths [bytes]."""
        yield from sorted((entry.path, entry.size) for entry in self._entries(prefix) if not entry.problem)

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders in the folder `prefix`."""
        with suppress(MissingObject), self._errors(prefix, "listed"), self._below(prefix) as folder:
            yield from (name for name in confined.folder_names(folder) if is_key(name) and prefix + name != INCOMING)

    def strays(self, prefix: str, *, deep: bool = True) -> Iterator[tuple[str, str]]:
        """Links, special files and files without a key below `prefix`, and foreign files among the temporary ones."""
        yield from sorted((entry.path, entry.problem) for entry in self._entries(prefix, deep=deep) if entry.problem)
        if not prefix and deep:
            yield from sorted(
                (entry.path, entry.problem or "is no temporary file of this store")
                for entry in self._temporary_files()
                if not _is_temporary(entry)
            )

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """Temporary files that were never moved to their names."""
        for entry in sorted(self._temporary_files(), key=lambda entry: entry.path):
            if _is_temporary(entry):
                yield UnfinishedWrite(entry.path, entry.modified, entry.path.rpartition("/")[2])

    def abort(self, write: UnfinishedWrite) -> None:
        """Delete a temporary file."""
        with suppress(MissingObject), self._errors(write.key, "deleted"), open_folders(self.root, [INCOMING]) as opened:
            if TEMPORARY.fullmatch(write.handle):
                confined.file_size(write.handle, opened[-1])  # only a regular file is one of ours
                os.unlink(write.handle, dir_fd=opened[-1])

    def delete(self, key: str) -> None:
        """Delete an object, and the folders that are empty then."""
        *folders, name = _names(key)
        with suppress(MissingObject), self._errors(key, "deleted"), open_folders(self.root, folders) as opened:
            confined.file_size(name, opened[-1])  # only a regular file is an object
            os.unlink(name, dir_fd=opened[-1])
            for folder, parent in zip(reversed(folders), reversed(opened[:-1]), strict=True):
                try:
                    os.rmdir(folder, dir_fd=parent)
                except OSError:
                    break

    def _entries(self, prefix: str, *, deep: bool = True) -> Iterator[FolderEntry]:
        """What lies below `prefix`, except for the temporary files."""
        path = prefix.rpartition("/")[0]
        with suppress(MissingObject), self._errors(prefix, "listed"), self._below(prefix) as folder:
            for entry in confined.walk(folder, f"{path}/" if path else "", deep=deep):
                hidden = entry.path.partition("/")[0] == INCOMING and entry.path != INCOMING
                if entry.path == INCOMING and not entry.problem:
                    yield replace(entry, problem="is a file where a folder belongs")
                elif entry.path.startswith(prefix) and not hidden:
                    yield entry

    def _temporary_files(self) -> Iterator[FolderEntry]:
        with suppress(FileNotFoundError, NotADirectoryError), open_folders(self.root, [INCOMING]) as opened:
            yield from confined.walk(opened[-1], f"{INCOMING}/", depth=0)

    @contextmanager
    def _below(self, prefix: str) -> Iterator[int]:
        """The folder that holds all keys with a prefix."""
        path = prefix.rpartition("/")[0]
        with open_folders(self.root, key_names(path) if path else []) as opened:
            yield opened[-1]

    def _get_neighbours(self, folders: Sequence[str], names: Sequence[str], limit: int) -> Iterator[bytes | None]:
        """Read small objects of one folder."""
        try:
            with self._errors("/".join(folders), "read"), open_folders(self.root, folders) as opened:
                for name in names:
                    with self._errors("/".join([*folders, name]), "read"):
                        data = confined.first_bytes(name, opened[-1], limit)
                    yield data
        except MissingObject:
            yield from (None for _ in names)

    @contextmanager
    def _open(self, key: str) -> Iterator[BufferedReader]:
        *folders, name = _names(key)
        with (
            self._errors(key, "read"),
            open_folders(self.root, folders) as opened,
            os.fdopen(confined.open_file(name, opened[-1]), "rb") as file,
        ):
            yield file

    @contextmanager
    def _errors(self, key: str, verb: str) -> Iterator[None]:
        """Raise errors of the file system as Headway's."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise MissingObject(f"{key}: no such object in {self.url}") from None
        except OSError as error:
            raise StoreError(f"{key}: cannot be {verb} in {self.url}: {error.strerror}") from error

    def _write(self, key: str, parts: Iterable[Buffer], place: Place) -> None:
        """Write the parts to a durable temporary file, then `place` it under the object's name."""
        names, temporary = _names(key), uuid.uuid4().hex
        try:
            with open_folders(self.root, [INCOMING], create=True) as opened:
                incoming = opened[-1]
                try:
                    with os.fdopen(os.open(temporary, confined.CREATE, 0o666, dir_fd=incoming), "wb") as file:
                        for part in parts:
                            file.write(part)
                        file.flush()
                        os.fsync(file.fileno())
                    self._place(temporary, incoming, names, place)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=incoming)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreError(f"{key}: cannot be written to {self.url}: {error.strerror}") from error

    def _place(self, temporary: str, incoming: int, names: Sequence[str], place: Place) -> None:
        """`place` a file in its folder, which is created again each time that a concurrent delete removes it.

        Raises:
            FileExistsError: the name exists, and `place` replaces no file.
        """
        *folders, name = names
        for tries_left in range(MAX_TRIES - 1, -1, -1):
            try:
                with open_folders(self.root, folders, create=True) as opened:
                    place(temporary, incoming, name, opened[-1])
                    os.fsync(opened[-1])
                    return
            except FileNotFoundError:  # a parent was deleted
                if not tries_left or not _exists(temporary, incoming):  # garbage collection deleted the file itself
                    raise


def _names(key: str) -> list[str]:
    """The folders and the file of an object.

    Raises:
        UsageError: it is not a key, or one of a temporary file.
    """
    names = key_names(key)
    if names[0] == INCOMING:
        raise UsageError(f"{key!r} is not an object key")
    return names


def _replace(temporary: str, incoming: int, name: str, folder: int) -> None:
    os.replace(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder)


def _link(temporary: str, incoming: int, name: str, folder: int) -> None:
    os.link(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder, follow_symlinks=False)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_temporary(entry: FolderEntry) -> bool:
    """Whether something in the folder of temporary files is one of this store."""
    return not entry.problem and bool(TEMPORARY.fullmatch(entry.path.removeprefix(f"{INCOMING}/")))
