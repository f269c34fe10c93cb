"""A folder as an object store: the built-in alternative to S3, with the same guarantees.

An object is written to a temporary file, made durable, and then linked or moved to its name, so readers see all of it
or nothing. Create-only writes are hard links, which the file system refuses if the name exists.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath

from headway import localfiles
from headway.errors import ExistingObject, MissingObject, StoreError, UsageError
from headway.objectstore.protocol import Buffer, UnfinishedWrite, get_or_none

INCOMING = ".incoming"
"""Folder of the temporary files."""
MAX_TRIES = 100
"""Attempts to place a file whose folder concurrent deletes remove."""


class FolderStore:
    """Objects as files below `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = self.root.as_uri()

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object, replacing an existing one."""
        self._write(key, parts, os.replace)

    def create(self, key: str, data: Buffer) -> None:
        """Write an object unless the key exists."""
        try:
            self._write(key, [data], os.link)
        except FileExistsError:
            raise ExistingObject(f"{key}: exists already in {self.url}") from None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of it."""
        with self._open(key) as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Read small objects, in the order of `keys`."""
        return (get_or_none(self, key) for key in keys)

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object from `start` on into `buffer`."""
        with self._open(key) as file:
            file.seek(start)
            return file.readinto(buffer)

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        path = self._path(key)
        if not path.is_file():
            raise MissingObject(f"{key}: no such object in {self.url}")
        return path.stat().st_size

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix`, sorted as S3 sorts them."""
        folder = self.root / prefix.rpartition("/")[0]
        keys = [
            (Path(parent) / name).relative_to(self.root).as_posix()
            for parent, _, names in os.walk(folder)
            for name in names
        ]
        hidden = f"{INCOMING}/"
        yield from sorted(key for key in keys if key.startswith(prefix) and key > after and not key.startswith(hidden))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix`, sorted as S3 sorts them, with lengths [bytes]."""
        for key in self.list(prefix):
            with suppress(MissingObject):  # deleted after it was listed
                yield key, self.size(key)

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders in the folder `prefix`."""
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from sorted(entry.name for entry in os.scandir(self.root / prefix) if entry.is_dir())

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """Temporary files that were never moved to their names."""
        folder = self.root / INCOMING
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else ():
            with suppress(FileNotFoundError):
                yield UnfinishedWrite(f"{INCOMING}/{entry.name}", entry.stat().st_mtime, entry.path)

    def abort(self, write: UnfinishedWrite) -> None:
        """Delete a temporary file."""
        Path(write.handle).unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Delete an object, and the folders that are empty then."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{key}: cannot be deleted from {self.url}: {error.strerror}") from error
        for parent in path.relative_to(self.root).parents[:-1]:
            try:
                (self.root / parent).rmdir()
            except OSError:
                break

    @contextmanager
    def _open(self, key: str) -> Iterator[BufferedReader]:
        try:
            with self._path(key).open("rb") as file:
                yield file
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MissingObject(f"{key}: no such object in {self.url}") from None
        except OSError as error:
            raise StoreError(f"{key}: cannot be read from {self.url}: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts:
            raise UsageError(f"{key!r} is not an object key")
        return self.root.joinpath(*parts)

    def _write(self, key: str, parts: Iterable[Buffer], place: Callable[[Path, Path], None]) -> None:
        """Write the parts to a durable temporary file, then `place` it under the object's name."""
        target = self._path(key)
        incoming = self.root / INCOMING / uuid.uuid4().hex
        try:
            incoming.parent.mkdir(parents=True, exist_ok=True)
            try:
                with incoming.open("xb") as file:
                    for part in parts:
                        file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
                _place(incoming, target, place)
            finally:
                incoming.unlink(missing_ok=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreError(f"{key}: cannot be written to {self.url}: {error.strerror}") from error


def _place(incoming: Path, target: Path, place: Callable[[Path, Path], None]) -> None:
    """`place` a file in its folder, which is created again each time that a concurrent delete removes it.

    Raises:
        FileExistsError: the name exists, and `place` replaces no file.
    """
    for tries_left in range(MAX_TRIES - 1, -1, -1):
        with suppress(FileNotFoundError, FileExistsError):  # a parent was deleted, or the folder exists
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            place(incoming, target)
            break
        except FileNotFoundError:
            if not tries_left or not incoming.exists():  # garbage collection deleted the file, not the folder
                raise
    with suppress(FileNotFoundError):  # the object was deleted at once, and its folder with it
        localfiles.sync(target.parent)
