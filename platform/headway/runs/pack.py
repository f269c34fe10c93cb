"""Packs: copies of journal entries, many per object, so that a long journal is read in few requests.

Readers check packs as they check entries. A missing or damaged pack makes them slower, nothing else.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence

from headway import strict_json
from headway.errors import ExistingObject
from headway.objectstore.protocol import Store
from headway.runs import keys
from headway.runs.hashlog import last_in_reach

ENTRIES = 128
"""Entries per pack; pack n starts with entry `n * ENTRIES + 1`."""
PACK_BYTES = 1 << 20
"""Longest pack [bytes], ten times as long as a usual one. Longer entries stay unpacked."""


def write(store: Store, run: str, number: int, entries: Sequence[bytes]) -> None:
    """Write a pack, unless it exists or is too long."""
    data = json.dumps([entry.decode() for entry in entries], indent=0).encode()
    if len(data) <= PACK_BYTES:
        with contextlib.suppress(ExistingObject):
            store.create(keys.pack(run, number), data)


def read_packs(store: Store, run: str) -> Iterator[list[bytes] | None]:
    """The entries of each pack, by number: None for a missing pack, an empty list for an unreadable one."""
    prefix = keys.packs(run)
    listed = (number for key in store.list(prefix) if (number := keys.numbered(prefix, key)) is not None)
    last = last_in_reach(listed, -1)
    for data in store.get_all((keys.pack(run, number) for number in range(last + 1)), PACK_BYTES + 1):
        yield None if data is None else _parse(data)


def read_entries(store: Store, run: str) -> Iterator[bytes]:
    """The packed entries from the first on, up to the first pack that is missing or unreadable."""
    for entries in read_packs(store, run):
        yield from entries or ()
        if entries is None or len(entries) < ENTRIES:
            return


def _parse(data: bytes) -> list[bytes]:
    if len(data) > PACK_BYTES:
        return []
    try:
        entries = [entry.encode() for entry in strict_json.parse(data)]
    except (ValueError, AttributeError, TypeError):
        return []
    return entries if len(entries) == ENTRIES else []
