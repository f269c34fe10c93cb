"""Packs: copies of a journal's entries, a hundred or so to an object, so that a long journal is read in a few requests.

Derived from the journal and checked as it is: a pack that is missing or damaged costs time, nothing else.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence

from headway.errors import ExistingObject
from headway.objectstore.protocol import Store
from headway.runs import keys

ENTRIES = 128
"""Entries of a pack; pack n holds those from `n * ENTRIES + 1` on."""


def write(store: Store, run: str, number: int, entries: Sequence[bytes]) -> None:
    """Write a pack of whole entries, unless somebody has."""
    text = json.dumps([entry.decode() for entry in entries], indent=0)
    with contextlib.suppress(ExistingObject):
        store.create(keys.pack(run, number), text.encode())


def each(store: Store, run: str) -> Iterator[list[bytes] | None]:
    """The packs by their numbers: None for a missing one below another; of an unreadable one, no entries."""
    stems = [keys.stem(key) for key in store.list(keys.packs(run))]
    last = max((int(stem) for stem in stems if stem.isdigit()), default=-1)
    for data in store.get_all(keys.pack(run, number) for number in range(last + 1)):
        yield None if data is None else _entries(data)


def read(store: Store, run: str) -> Iterator[bytes]:
    """The entries that are packed, from the first on, as far as packs are dense and readable."""
    for entries in each(store, run):
        yield from entries or ()
        if entries is None or len(entries) < ENTRIES:
            return


def _entries(data: bytes) -> list[bytes]:
    try:
        return [entry.encode() for entry in json.loads(data)]
    except (ValueError, AttributeError, TypeError):
        return []
