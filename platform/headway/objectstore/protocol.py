"""The object store protocol: what Headway needs from a store, and every object store offers.

Objects appear whole. There are create-only writes, ranged reads, listing and deletion; no renames, locks or appends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from headway.errors import DamageError, MissingObject

Buffer = bytes | bytearray | memoryview
WHOLE_BYTES = 64 << 20
"""Longest object that `Store.get` returns whole [bytes]. Longer ones are read in ranges."""


@dataclass(frozen=True)
class UnfinishedWrite:
    """A write that was started and neither completed nor aborted. Its object is not visible."""

    key: str
    """Key of the object or name of the temporary file, for messages."""
    started: float
    """Start of the write [s since 1970]."""
    handle: str
    """The store's identifier of the write."""
    target: str | None = None
    """Key of its object, if the store knows it."""


class Store(Protocol):
    """An object store, or one prefix of it. Keys are separated by `/` and relative to its URL."""

    url: str
    readers: int
    """Threads that read many objects faster than one does. More of them wait for each other."""

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object from its parts, replacing an existing one. It appears whole or not at all.

        Raises:
            StoreError: the write failed.
        """

    def create(self, key: str, data: Buffer) -> None:
        """Write an object unless the key exists. Exactly one of several concurrent writers succeeds.

        Raises:
            ExistingObject: the key exists.
            StoreError: the write failed, or its result is unknown.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or at most `length` bytes of it from byte `start`.

        Raises:
            MissingObject: the key does not exist.
            DamageError: no `length` is given, and the object is longer than `WHOLE_BYTES`.
        """

    def get_all(self, keys: Iterable[str], limit: int) -> Iterator[bytes | None]:
        """Read the first `limit` bytes of small objects in the order of `keys`, in parallel where that is faster.

        None for a missing one.
        """

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes from `start` on into `buffer`. Returns their number, which is smaller if the object ends.

        Raises:
            MissingObject: the key does not exist.
        """

    def size(self, key: str) -> int:
        """Length of an object [bytes].

        Raises:
            MissingObject: the key does not exist.
        """

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and sort after `after`, in order."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix`, in order, with the lengths of their objects [bytes]."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Distinct names between `prefix`, which ends in `/`, and the next `/`, in order."""

    def strays(self, prefix: str, *, deep: bool = True) -> Iterator[tuple[str, str]]:
        """What lies below `prefix` and is no object of any key: its place, and why. Only folders have such things.

        Looks at the names between `prefix` and the next `/` only, unless `deep` is set.
        """

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """Writes that were started and neither completed nor aborted."""

    def abort(self, write: UnfinishedWrite) -> None:
        """Abort an unfinished write. Its writer fails if it still runs."""

    def delete(self, key: str) -> None:
        """Delete an object. A missing one is no error."""


def get_or_none(store: Store, key: str, limit: int | None = None) -> bytes | None:
    """Read an object, or its first `limit` bytes; None if it is missing. Implements one element of `Store.get_all`."""
    try:
        return store.get(key, 0, limit)
    except MissingObject:
        return None


def read_document(store: Store, key: str, limit: int) -> bytes:
    """Read an object that nobody makes longer than `limit` [bytes].

    Raises:
        MissingObject: the key does not exist.
        DamageError: it is longer.
    """
    data = store.get(key, 0, limit + 1)
    if len(data) > limit:
        raise too_long(key, limit)
    return data


def too_long(key: str, limit: int) -> DamageError:
    """The error for an object that is longer than `limit` [bytes]."""
    return DamageError(f"{key}: is longer than {limit:,} bytes, which no such object is; it is not read")
