"""The journal of a run: a hash log with fencing.

Each entry after a claim belongs to an attempt. An attempt that reads a newer claim, or its own end, is fenced and
appends nothing more.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from headway.errors import FencedError
from headway.objectstore.protocol import Store
from headway.runs import keys, pack
from headway.runs.entries import KINDS, Claimed, Committed, Decided, Ended, Entry, Pruned
from headway.runs.hashlog import ENTRY_BYTES, Damaged, EntryHeader, HashLog
from headway.runs.keys import CheckpointKey

E = TypeVar("E", Claimed, Committed, Decided, Ended, Pruned)


class Journal(HashLog[Entry]):
    """A run's journal, as far as this process has read it. Safe to use from several threads."""

    def __init__(self, store: Store, run: str, *, packed: bool = True) -> None:
        """A `packed` journal reads packs where they exist; otherwise it reads every entry."""
        super().__init__(store, keys.journal(run), KINDS)
        self.run, self.packed = run, packed
        self._unpacked: list[bytes] = []
        """Journal entries, as stored, that are not yet copied into a pack (an object of 128 entries)."""

    @property
    def bodies(self) -> list[bytes]:
        """The stored bytes of the entries, of a journal that is read without packs."""
        return list(self._unpacked)

    def problem(self, entry: Entry) -> str | None:
        """What is wrong with an entry: it says what no process writes about this run."""
        if isinstance(entry, Claimed):
            return None if entry.attempt == entry.seq else f"claims attempt {entry.attempt}, not its own number"
        if entry.attempt >= entry.seq:
            return f"belongs to attempt {entry.attempt}, which nobody had claimed"
        if isinstance(entry, Committed):
            manifest = keys.checkpoint_manifest(self.run, entry.tokens, entry.attempt)
            return None if entry.manifest == manifest else "commits a manifest that is not its own"
        if isinstance(entry, Pruned) and not all(map(self._is_manifest, entry.manifests)):
            return "prunes what is no checkpoint of this run"
        return None

    def _is_manifest(self, key: str) -> bool:
        """Whether a key is that of a manifest of this run."""
        parsed = CheckpointKey.parse(key)
        return parsed is not None and parsed.run == self.run and parsed.is_manifest

    def read(self) -> list[Entry | Damaged]:
        """Catch up with the store and return all entries, oldest first."""
        with self._lock:
            if self.packed and not self.entries:
                self._unpack()
            self._catch_up()
            if self.packed and any(isinstance(entry, Damaged) for entry in self.entries):
                self.packed, self._tail = False, ""  # the damage may be in a pack: read the entries themselves
                self.entries.clear()
                self._unpacked.clear()
                self._catch_up()
            return list(self.entries)

    def pack(self) -> None:
        """Write packs as far as there are entries to fill them."""
        with self._lock:
            while len(self._unpacked) >= pack.ENTRIES:
                number = (len(self.entries) - len(self._unpacked)) // pack.ENTRIES
                first = number * pack.ENTRIES
                if any(isinstance(entry, Damaged) for entry in self.entries[first : first + pack.ENTRIES]):
                    return
                pack.write(self.store, self.run, number, self._unpacked[: pack.ENTRIES])
                del self._unpacked[: pack.ENTRIES]

    def check_packs(self) -> Iterator[str]:
        """Report packs that differ from their entries, for a journal read without packs. They slow readers down only.

        Skips packs whose entries are damaged: they may hold the last sound copies.
        """
        with self._lock:
            packs = list(pack.read_packs(self.store, self.run))
            self._catch_up(self._last_packed(len(packs)))  # the packs may be newer than the entries read so far
        for number, entries in enumerate(packs):
            span = slice(number * pack.ENTRIES, (number + 1) * pack.ENTRIES)
            differs = entries is not None and entries != self._unpacked[span]
            if differs and not any(isinstance(entry, Damaged) for entry in self.entries[span]):
                yield f"{keys.pack(self.run, number)}: is not a copy of its {pack.ENTRIES} journal entries; delete it"

    def _last_packed(self, packs: int) -> int:
        """The last entry that this many packs hold; none beyond those read so far, unless it exists."""
        last = packs * pack.ENTRIES
        exists = next(self.store.get_all([keys.journal_entry(self.run, last)], ENTRY_BYTES)) if packs else None
        return 0 if exists is None else last

    def claim(self, check: Callable[[], None], **fields: Any) -> Claimed:
        """Start an attempt, if `check` passes on the journal as read.

        `check` is called again after each lost race, so of two concurrent claims the second sees the first.
        """
        return self._append(Claimed, None, check, fields)

    def append(self, kind: type[E], attempt: int, **fields: Any) -> E:
        """Append an entry for `attempt`.

        Raises:
            FencedError: a newer attempt has claimed the run.
        """
        return self._append(kind, attempt, lambda: self.check_unfenced(attempt), fields)

    def check_unfenced(self, attempt: int) -> None:
        """Check that `attempt` may write: the entries read hold neither a newer claim nor its end.

        Raises:
            FencedError: they hold one.
        """
        newest = self.newest_claim()
        if any(isinstance(entry, Ended) and entry.attempt == attempt for entry in self.entries[attempt:]):
            raise FencedError(f"run {self.run}: attempt {attempt} has ended already; nothing was written")
        if newest is not None and newest.seq > attempt:
            holder = str(newest.holder) if isinstance(newest, Claimed) else "an unreadable entry"
            raise FencedError(
                f"run {self.run}: attempt {attempt} is fenced: attempt {newest.seq} was claimed by {holder}; "
                f"nothing was written"
            )

    def newest_claim(self) -> Claimed | Damaged | None:
        """The last claim among the entries read. A damaged entry counts as one, since it may be one."""
        return next((e for e in reversed(self.entries) if isinstance(e, Claimed | Damaged)), None)

    def _append(self, kind: type[E], attempt: int | None, check: Callable[[], None], fields: dict[str, Any]) -> E:
        def make(header: EntryHeader) -> E:
            return kind(attempt=header["seq"] if attempt is None else attempt, **header, **fields)

        return self.add(make, check)

    def _unpack(self) -> None:
        """Load the packed entries. Each is verified by the hash in the next, the last by its own object."""
        packed = list(pack.read_entries(self.store, self.run))
        last = keys.journal_entry(self.run, len(packed))
        if packed and packed[-1] != next(self.store.get_all([last], ENTRY_BYTES + 1)):
            self.packed = False
            return
        for data in packed:
            self._accept(len(self.entries) + 1, data)
        del self._unpacked[: len(self.entries) - len(self.entries) % pack.ENTRIES]

    def _accept(self, seq: int, data: bytes | None) -> None:
        """Add the entry `seq`, and keep its bytes for a pack."""
        super()._accept(seq, data)
        self._unpacked.append(data if data and not isinstance(self.entries[-1], Damaged) else b"")
