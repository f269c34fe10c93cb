"""The run's journal: an append-only log that needs nothing of the store but create-only writes.

To append, a writer creates the entry after the last one it knows. If that key is taken it reads on: a newer claim
means that it is fenced; its own nonce, that its write had succeeded although the answer was lost.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from headway.errors import DamageError, ExistingObject, FencedError, MissingObject
from headway.store import keys
from headway.store.entries import Claimed, Committed, Decided, Ended, Entry, Pruned, decode, encode, sha256
from headway.store.objects import Store

E = TypeVar("E", Claimed, Committed, Decided, Ended, Pruned)


@dataclass(frozen=True)
class Damaged:
    """A journal entry whose bytes are not what was written; nothing it says is believed."""

    seq: int
    reason: str


class Journal:
    """One run's journal, as far as this process has read it. Safe to use from several threads."""

    def __init__(self, store: Store, run: str) -> None:
        self.store, self.run = store, run
        self.entries: list[Entry | Damaged] = []
        self._tail = ""
        self._lock = threading.RLock()

    def read(self) -> list[Entry | Damaged]:
        """All entries, oldest first, after catching up with the store."""
        with self._lock:
            after = keys.entry(self.run, len(self.entries)) if self.entries else ""
            for key in self.store.list(keys.journal(self.run), after=after):
                while key >= keys.entry(self.run, len(self.entries) + 1):
                    self._fetch(len(self.entries) + 1)
            return list(self.entries)

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
        """See that no newer claim than `attempt` is among the entries read.

        Raises:
            FencedError: there is one.
        """
        newest = self.newest_claim()
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
        nonce = secrets.token_hex(8)
        with self._lock:
            while True:
                self.read()
                check()
                seq = len(self.entries) + 1
                entry = kind(
                    seq=seq,
                    attempt=seq if attempt is None else attempt,
                    time=time.time(),
                    nonce=nonce,
                    previous=self._tail,
                    **fields,
                )
                data = encode(entry)
                try:
                    self.store.create(keys.entry(self.run, seq), data)
                except ExistingObject:
                    data = self.store.get(keys.entry(self.run, seq))
                self._accept(seq, data)
                accepted = self.entries[-1]
                if not isinstance(accepted, Damaged) and accepted.nonce == nonce:
                    return entry

    def _fetch(self, seq: int) -> None:
        try:
            self._accept(seq, self.store.get(keys.entry(self.run, seq)))
        except MissingObject:
            self.entries.append(Damaged(seq, f"journal entry {seq} is missing"))
            self._tail = ""

    def _accept(self, seq: int, data: bytes) -> None:
        """Take in the entry `seq`, and blame the one before if this one remembers it differently."""
        entry: Entry | Damaged
        try:
            entry = decode(data, seq)
            if self._tail and entry.previous != self._tail and not isinstance(self.entries[-1], Damaged):
                self.entries[-1] = Damaged(
                    seq - 1, f"journal entry {seq - 1} was changed after entry {seq} was written"
                )
        except DamageError as error:
            entry = Damaged(seq, str(error))
        self.entries.append(entry)
        self._tail = sha256(data)
