"""An object store in a dictionary. A double, for what a real store is too slow or too honest for."""

from collections.abc import Iterable, Iterator

from headway.errors import ExistingObject, MissingObject
from headway.objectstore import Buffer
from headway.objectstore.protocol import UnfinishedWrite, get_or_none


class MemoryStore:
    """Objects as bytes by key."""

    url = "memory://"
    readers = 2

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object."""
        self.objects[key] = b"".join(parts)

    def create(self, key: str, data: Buffer) -> None:
        """Write an object, only if there is none of that key."""
        if key in self.objects:
            raise ExistingObject(f"{key}: exists already in {self.url}")
        self.objects[key] = bytes(data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of it."""
        if key not in self.objects:
            raise MissingObject(f"{key}: no such object in {self.url}")
        return self.objects[key][start : None if length is None else start + length]

    def get_all(self, keys: Iterable[str], limit: int) -> Iterator[bytes | None]:
        """Read small objects, in their order."""
        return (get_or_none(self, key, limit) for key in keys)

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object into `buffer`."""
        data = self.get(key, start, buffer.nbytes)
        buffer[: len(data)] = data
        return len(data)

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        return len(self.get(key))

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys below `prefix`, in order."""
        yield from sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below `prefix`, in order, with lengths."""
        yield from ((key, len(self.objects[key])) for key in self.list(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        """The names that follow `prefix` up to the next `/`."""
        rests = (key.removeprefix(prefix) for key in self.objects if key.startswith(prefix))
        yield from sorted({rest.partition("/")[0] for rest in rests if "/" in rest})

    def strays(self, _prefix: str, *, deep: bool = True) -> Iterator[tuple[str, str]]:
        """Nothing but objects is ever here."""
        del deep
        return iter(())

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """Nothing is ever half written here."""
        return iter(())

    def abort(self, write: UnfinishedWrite) -> None:
        """Nothing to give up."""

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.objects.pop(key, None)
