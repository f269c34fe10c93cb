"""The object store protocol: what Headway needs of a store.

Only what every object store offers: whole objects that appear at once, create-only writes, ranged reads,
listing and deletion. No renames, no locks, no appends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from headway.errors import MissingObject

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Unfinished:
    """A write that was begun: part of an object that nobody can see."""

    what: str
    """For people: its key, as far as it is known."""
    since: float
    """When it was begun [s since 1970]."""
    handle: str
    """What the store knows it by."""


class Store(Protocol):
    """One object store, or one prefix of it. Keys are `/`-separated and relative to its URL."""

    url: str

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object from its parts, replacing any that was there; it appears whole or not at all.

        Raises:
            StoreError: it could not be written.
        """

    def create(self, key: str, data: Buffer) -> None:
        """Write an object only if the key is free; of several writers exactly one succeeds.

        Raises:
            ExistingObject: the key was taken.
            StoreError: it could not be written, or nobody knows whether it was.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or `length` bytes of it from byte `start`.

        Raises:
            MissingObject: there is none.
        """

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Read small objects, in their order, side by side where that is faster; None for a missing one."""

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object from `start` on into `buffer`; returns how many, fewer if the object ends.

        Raises:
            MissingObject: there is none.
        """

    def size(self, key: str) -> int:
        """Length of an object [bytes].

        Raises:
            MissingObject: there is none.
        """

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and sort after `after`, in order."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix`, in order, each with its object's length [bytes]."""

    def folders(self, prefix: str) -> Iterator[str]:
        """The different names that follow `prefix` (which ends in `/`) up to the next `/`, in order."""

    def unfinished(self) -> Iterator[Unfinished]:
        """Writes that were begun and, so far, neither finished nor given up."""

    def discard(self, unfinished: Unfinished) -> None:
        """Give up an unfinished write; its writer, if there still is one, fails."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""


def get_or_none(store: Store, key: str) -> bytes | None:
    """An object whole, or None if it is missing: how `Store.get_all` reads each."""
    try:
        return store.get(key)
    except MissingObject:
        return None
