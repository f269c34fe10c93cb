"""Packs: copies of a journal's entries, a hundred or so to an object, so that a long journal is read in a few requests.

Derived from the journal and checked as it is: a pack that is missing or damaged costs time, nothing else.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence

from headway.errors import ExistingObject
from headway.store import keys
from headway.store.objects import Store

ENTRIES = 128
"""Entries of a pack; pack n holds those from `n * ENTRIES + 1` on."""


def write(store: Store, run: str, number: int, entries: Sequence[bytes]) -> None:
    """Write a pack of whole entries, unless somebody has."""
    text = json.dumps([entry.decode() for entry in entries], indent=0)
    with contextlib.suppress(ExistingObject):
        store.create(keys.pack(run, number), text.encode())


def each(store: Store, run: str) -> Iterator[list[bytes]]:
    """The packs, from the first on, as far as they are dense; of an unreadable one, no entries."""
    there = list(store.list(keys.packs(run)))
    dense = [key for number, key in enumerate(there) if key == keys.pack(run, number)]
    yield from map(_entries, store.get_all(dense))


def read(store: Store, run: str) -> Iterator[bytes]:
    """The entries that are packed, from the first on, as far as packs are dense and readable."""
    for entries in each(store, run):
        yield from entries
        if len(entries) < ENTRIES:
            return


def _entries(data: bytes | None) -> list[bytes]:
    try:
        entries = json.loads(data or b"[]")
        return [entry.encode() for entry in entries]
    except (ValueError, AttributeError, TypeError):
        return []
