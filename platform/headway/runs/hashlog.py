"""A log of create-only entries: how everything becomes true, of a run and of a model.

To append, a writer creates the entry after the last one it knows. If that key is taken it reads on; its own nonce means
that its write had succeeded although the answer was lost. So every entry was written by somebody who knew all entries
before it, and a write that is under way when its place is taken can never take another.

An entry's `digest` covers all its other fields, and `previous` is the SHA-256 of the whole entry before it, so
neither an entry nor the history can be damaged or edited unseen.
"""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from headway.errors import DamageError, ExistingObject
from headway.objectstore.protocol import Store
from headway.runs import keys


class LogEntry(BaseModel):
    """What every entry has; each kind of entry adds its own fields, and a `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int
    time: float
    """Seconds since 1970, by the writer's clock."""
    nonce: str
    """Tells a writer's own entry, written although the answer was lost, from another's."""
    previous: str


class EntryHeader(TypedDict):
    """Where an entry goes: the fields of a `LogEntry`."""

    seq: int
    time: float
    nonce: str
    previous: str


@dataclass(frozen=True)
class Damaged:
    """An entry whose bytes are not what was written; nothing it says is believed."""

    seq: int
    reason: str


L = TypeVar("L", bound=LogEntry)
Added = TypeVar("Added", bound=LogEntry | None)


class HashLog(Generic[L]):
    """One log, as far as this process has read it. Safe to use from several threads."""

    def __init__(self, store: Store, prefix: str, kinds: TypeAdapter[L]) -> None:
        """`prefix`: of the entries' keys; `kinds`: what an entry can be."""
        self.store, self.prefix, self.kinds = store, prefix, kinds
        self.entries: list[L | Damaged] = []
        self._tail = ""
        self._lock = threading.RLock()

    def read(self) -> list[L | Damaged]:
        """All entries, oldest first, after catching up with the store."""
        with self._lock:
            self._catch_up()
            return list(self.entries)

    def add(self, make: Callable[[EntryHeader], Added], check: Callable[[], object] = lambda: None) -> Added:
        """Add the entry that `make` makes for its place, after `check` has agreed to the log as it stands.

        Both are called again whenever somebody else got ahead. `make` goes by `entries` and reads no further; where it
        makes None, nothing is added.
        """
        nonce = secrets.token_hex(8)
        with self._lock:
            while True:
                self.read()
                check()
                seq = len(self.entries) + 1
                entry = make(EntryHeader(seq=seq, time=time.time(), nonce=nonce, previous=self._tail))
                if entry is None:
                    return entry
                data = encode(entry)
                try:
                    self.store.create(keys.journal_entry(self.prefix, seq), data)
                except ExistingObject:
                    data = self.store.get(keys.journal_entry(self.prefix, seq))
                self._accept(seq, data)
                accepted = self.entries[-1]
                if not isinstance(accepted, Damaged) and accepted.nonce == nonce:
                    return entry

    def _catch_up(self, least: int = 0) -> None:
        """Read the entries after those that are known, and those up to `least`, which must be there.

        A listing may come late: an entry implies all before it.
        """
        after = keys.journal_entry(self.prefix, len(self.entries)) if self.entries else ""
        listed = [keys.stem(key) for key in self.store.list(self.prefix, after=after)]
        last = max([least, *(int(stem) for stem in listed if stem.isdigit())])
        numbers = range(len(self.entries) + 1, last + 1)
        bodies = self.store.get_all(keys.journal_entry(self.prefix, number) for number in numbers)
        for number, data in zip(numbers, bodies, strict=True):
            self._accept(number, data)

    def _accept(self, seq: int, data: bytes | None) -> None:
        """Take in the entry `seq`, and blame the one before if this one remembers it differently."""
        if data is None:
            self.entries.append(Damaged(seq, f"journal entry {seq} is missing"))
            self._tail = ""
            return
        entry: L | Damaged
        try:
            entry = decode(data, seq, self.kinds)
            if self._tail and entry.previous != self._tail and not isinstance(self.entries[-1], Damaged):
                self.entries[-1] = Damaged(
                    seq - 1, f"journal entry {seq - 1} was changed after entry {seq} was written"
                )
        except DamageError as error:
            entry = Damaged(seq, str(error))
        self.entries.append(entry)
        self._tail = sha256(data)


def sha256(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def encode(entry: LogEntry) -> bytes:
    """An entry as JSON that a person can read, with its digest."""
    fields = entry.model_dump(mode="json")
    return json.dumps({**fields, "digest": _digest(fields)}, indent=1).encode() + b"\n"


def decode(data: bytes, seq: int, kinds: TypeAdapter[L]) -> L:
    """An entry from its bytes.

    Raises:
        DamageError: they are not what was written.
    """
    try:
        fields = json.loads(data)
        recorded = fields.pop("digest")
        entry = kinds.validate_python(fields)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise DamageError(f"journal entry {seq} is not readable as one") from error
    if _digest(fields) != recorded:
        raise DamageError(f"journal entry {seq} does not match its own checksum")
    if entry.seq != seq:
        raise DamageError(f"journal entry {seq} says that it is entry {entry.seq}")
    return entry


def _digest(fields: dict[str, object]) -> str:
    return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
