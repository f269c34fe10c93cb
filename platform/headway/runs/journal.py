"""The run's journal: an append-only log that needs nothing of the store but create-only writes.

What holds for every log is in `chain`. A run adds the fence: whoever appends is an attempt, and one that finds a newer
claim than its own, or its own end, appends nothing any more.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from headway.errors import FencedError
from headway.objectstore.protocol import Store
from headway.runs import keys, pack
from headway.runs.entries import KINDS, Claimed, Committed, Decided, Ended, Entry, Pruned
from headway.runs.hashlog import Damaged, EntryHeader, HashLog

E = TypeVar("E", Claimed, Committed, Decided, Ended, Pruned)


class Journal(HashLog[Entry]):
    """One run's journal, as far as this process has read it. Safe to use from several threads."""

    def __init__(self, store: Store, run: str, *, packed: bool = True) -> None:
        """`packed`: believe packs of entries where there are any. Without, every entry itself is read."""
        super().__init__(store, keys.journal(run), KINDS)
        self.run, self.packed = run, packed
        self._loose: list[bytes] = []
        """The entries that are in no pack that this process knows of."""

    @property
    def bodies(self) -> list[bytes]:
        """The entries as they are stored, of a journal that is read without packs."""
        return list(self._loose)

    def read(self) -> list[Entry | Damaged]:
        """All entries, oldest first, after catching up with the store."""
        with self._lock:
            if self.packed and not self.entries:
                self._unpack()
            self._catch_up()
            if self.packed and any(isinstance(entry, Damaged) for entry in self.entries):
                self.packed, self._tail = False, ""  # a pack may be what is damaged: only the entries themselves count
                self.entries.clear()
                self._loose.clear()
                self._catch_up()
            return list(self.entries)

    def pack(self) -> None:
        """Copy entries into packs, as far as they fill any; for readers of long journals."""
        with self._lock:
            while len(self._loose) >= pack.ENTRIES:
                number = (len(self.entries) - len(self._loose)) // pack.ENTRIES
                first = number * pack.ENTRIES
                if any(isinstance(entry, Damaged) for entry in self.entries[first : first + pack.ENTRIES]):
                    return
                pack.write(self.store, self.run, number, self._loose[: pack.ENTRIES])
                del self._loose[: pack.ENTRIES]

    def unlike_packs(self) -> Iterator[str]:
        """What is wrong with the packs, for a journal that was read without them. It makes readers slow, not wrong.

        Nothing is said of a pack whose entries are damaged themselves: it may hold the last sound copies.
        """
        with self._lock:
            packs = list(pack.each(self.store, self.run))
            self._catch_up(len(packs) * pack.ENTRIES)  # packs may have been written since the entries were read
        for number, entries in enumerate(packs):
            its = slice(number * pack.ENTRIES, (number + 1) * pack.ENTRIES)
            differs = entries is not None and entries != self._loose[its]
            if differs and not any(isinstance(entry, Damaged) for entry in self.entries[its]):
                yield f"{keys.pack(self.run, number)}: is not a copy of its {pack.ENTRIES} journal entries; delete it"

    def claim(self, check: Callable[[], None], **fields: Any) -> Claimed:
        """Begin an attempt, after `check` has agreed to the journal as it stands.

        `check` is called again whenever somebody else got ahead, so of two that claim at once the second sees the
        first.
        """
        return self._append(Claimed, None, check, fields)

    def append(self, kind: type[E], attempt: int, **fields: Any) -> E:
        """Add an entry on behalf of `attempt`.

        Raises:
            FencedError: a newer attempt has claimed the run.
        """
        return self._append(kind, attempt, lambda: self.check_unfenced(attempt), fields)

    def check_unfenced(self, attempt: int) -> None:
        """See that `attempt` may write: among the entries read is no newer claim than its own, nor its end.

        Raises:
            FencedError: there is one.
        """
        newest = self.newest_claim()
        if any(isinstance(entry, Ended) and entry.attempt == attempt for entry in self.entries[attempt:]):
            raise FencedError(f"run {self.run}: attempt {attempt} has ended already; nothing was written")
        if newest is not None and newest.seq > attempt:
            who = str(newest.holder) if isinstance(newest, Claimed) else "somebody unreadable"
            raise FencedError(
                f"run {self.run}: attempt {attempt} is fenced: attempt {newest.seq} was claimed by {who}; "
                f"nothing was written"
            )

    def newest_claim(self) -> Claimed | Damaged | None:
        """The last claim among the entries read; a damaged entry may have been one, so it counts as one."""
        return next((e for e in reversed(self.entries) if isinstance(e, Claimed | Damaged)), None)

    def _append(self, kind: type[E], attempt: int | None, check: Callable[[], None], fields: dict[str, Any]) -> E:
        def make(place: EntryHeader) -> E:
            return kind(attempt=place["seq"] if attempt is None else attempt, **place, **fields)

        return self.add(make, check)

    def _unpack(self) -> None:
        """Begin with what packs hold. Each entry is vouched for by the next; the last of them only by itself."""
        packed = list(pack.read(self.store, self.run))
        if packed and packed[-1] != next(self.store.get_all([keys.entry(self.run, len(packed))])):
            self.packed = False
            return
        for data in packed:
            self._accept(len(self.entries) + 1, data)
        del self._loose[: len(self.entries) - len(self.entries) % pack.ENTRIES]

    def _accept(self, seq: int, data: bytes | None) -> None:
        """Take in the entry `seq`, which is in no pack as far as is known."""
        super()._accept(seq, data)
        self._loose.append(data or b"")
