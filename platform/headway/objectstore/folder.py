"""A folder as an object store: the embedded default for S3, with the same promises.

An object is written aside, made durable, and then linked or moved into place, so readers see it whole or not at
all. Create-only writes are hard links, which the file system refuses when the name is taken.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath

from headway.errors import ExistingObject, MissingObject, StoreError, UsageError
from headway.objectstore.protocol import Buffer, Unfinished, get_or_none

INCOMING = ".incoming"
MAX_TRIES = 100
"""So often a folder may vanish under a writer: each time somebody else got something done in it."""


class FolderStore:
    """Objects as files below `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = self.root.as_uri()

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object whole, replacing any that was there."""
        self._write(key, parts, os.replace)

    def create(self, key: str, data: Buffer) -> None:
        """Write an object whole, only if there is none of that key."""
        try:
            self._write(key, [data], os.link)
        except FileExistsError:
            raise ExistingObject(f"{key}: exists already in {self.url}") from None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of it."""
        with self._reading(key) as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Read small objects, in their order."""
        return (get_or_none(self, key) for key in keys)

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object from `start` on into `buffer`."""
        with self._reading(key) as file:
            file.seek(start)
            return file.readinto(buffer)

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        path = self._path(key)
        if not path.is_file():
            raise MissingObject(f"{key}: no such object in {self.url}")
        return path.stat().st_size

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys below `prefix`, sorted as S3 sorts them."""
        folder = self.root / prefix.rpartition("/")[0]
        keys = [
            (Path(place) / name).relative_to(self.root).as_posix()
            for place, _, names in os.walk(folder)
            for name in names
        ]
        hidden = f"{INCOMING}/"
        yield from sorted(key for key in keys if key.startswith(prefix) and key > after and not key.startswith(hidden))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below `prefix`, sorted as S3 sorts them, with lengths."""
        for key in self.list(prefix):
            with suppress(MissingObject):  # deleted since it was listed
                yield key, self.size(key)

    def folders(self, prefix: str) -> Iterator[str]:
        """The names that follow `prefix` up to the next `/`."""
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from sorted(entry.name for entry in os.scandir(self.root / prefix) if entry.is_dir())

    def unfinished(self) -> Iterator[Unfinished]:
        """Files that were written aside and never put in place."""
        place = self.root / INCOMING
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name) if place.is_dir() else ():
            with suppress(FileNotFoundError):
                yield Unfinished(f"{INCOMING}/{entry.name}", entry.stat().st_mtime, entry.path)

    def discard(self, unfinished: Unfinished) -> None:
        """Remove such a file."""
        Path(unfinished.handle).unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Remove an object, and the folders that it leaves empty."""
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
    def _reading(self, key: str) -> Iterator[BufferedReader]:
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
        """Write the parts to a durable file aside, then `place` it where the object belongs."""
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
                _settle(incoming, target, place)
            finally:
                incoming.unlink(missing_ok=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreError(f"{key}: cannot be written to {self.url}: {error.strerror}") from error


def _settle(incoming: Path, target: Path, place: Callable[[Path, Path], None]) -> None:
    """`place` a file in its folder, which is made anew as often as a delete of what it held has taken it away.

    Raises:
        FileExistsError: the name is taken, and `place` takes no taken name.
    """
    for left in range(MAX_TRIES - 1, -1, -1):
        with suppress(FileNotFoundError, FileExistsError):  # taken away while it was made, or seen to be there
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            place(incoming, target)
            break
        except FileNotFoundError:
            if not left or not incoming.exists():  # given up for garbage: it is not the folder that is missing
                raise
    with suppress(FileNotFoundError):  # the object was deleted at once, and its folder with it
        _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
