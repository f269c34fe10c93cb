"""Hash-chained logs of create-only entries: the journals of runs and models.

To append, a writer creates the entry after the last one it has read. If that key exists, it reads on; an entry with its
own nonce means that its write succeeded although the response was lost. So the writer of an entry has read all entries
before it, and a write that loses its position never gets another.

An entry's `digest` covers its other fields, and `previous` is the SHA-256 of the entry before it, so damage and edits
are detected. Neither says who wrote it, so what an entry may say is checked as well: its types, their bounds, and
whatever its log demands (`HashLog.problem`).
"""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Generic, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from headway import strict_json
from headway.errors import DamageError, ExistingObject, JournalError
from headway.objectstore.protocol import Store
from headway.runs import keys
from headway.runs.field_types import Moment, Number

ENTRY_BYTES = 256 << 10
"""Longest entry [bytes]. The longest that Headway writes names a thousand pruned checkpoints, in 100 kB."""
MAX_GAP = 100
"""Missing entries in a row that a log goes on after. An object beyond a longer gap is no entry of the log."""
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
"""Writes the text that a digest covers. One encoder for all: making one takes longer than an entry does."""


class LogEntry(BaseModel):
    """The fields of every entry. Each kind of entry adds its own and a `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seq: Number
    """Position in the log, from 1."""
    time: Moment
    """Time of the write by the writer's clock [s since 1970]."""
    nonce: Annotated[str, Field(max_length=64)]
    """Random id by which a writer recognises its own entry after a lost response."""
    previous: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?\z")]
    """SHA-256 of the entry before, in hex; empty for the first."""


class EntryHeader(TypedDict):
    """The fields of `LogEntry`, for the constructor of an entry."""

    seq: int
    time: float
    nonce: str
    previous: str


@dataclass(frozen=True)
class Damaged:
    """Placeholder for an entry whose bytes are not those that were written."""

    seq: int
    reason: str


L = TypeVar("L", bound=LogEntry)
Added = TypeVar("Added", bound=LogEntry | None)


class HashLog(Generic[L]):
    """A log, as far as this process has read it. Safe to use from several threads."""

    def __init__(self, store: Store, prefix: str, kinds: TypeAdapter[L]) -> None:
        """`prefix` starts the keys of the entries, `kinds` parses them."""
        self.store, self.prefix, self.kinds = store, prefix, kinds
        self.entries: list[L | Damaged] = []
        self.strays: list[str] = []
        """Keys like those of entries, beyond a gap longer than `MAX_GAP`, as last listed."""
        self._tail = ""
        self._lock = threading.RLock()

    def read(self) -> list[L | Damaged]:
        """Catch up with the store and return all entries, oldest first."""
        with self._lock:
            self._catch_up()
            return list(self.entries)

    def problem(self, entry: L) -> str | None:
        """What is wrong with an entry of this log; None if it fits. Each kind of log adds what it demands."""
        del entry
        return None

    def add(self, make: Callable[[EntryHeader], Added], check: Callable[[], object] = lambda: None) -> Added:
        """Append the entry that `make` returns for a header, if `check` passes on the log as read.

        Both are called again after each lost race. `make` may use `entries`, but must not read on. If it returns None,
        nothing is appended.

        Raises:
            JournalError: readers would take the entry for damage.
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
                data = self._encode(entry)
                try:
                    self.store.create(keys.hashlog_entry(self.prefix, seq), data)
                except ExistingObject:
                    data = self.store.get(keys.hashlog_entry(self.prefix, seq), 0, ENTRY_BYTES + 1)
                self._accept(seq, data)
                accepted = self.entries[-1]
                if not isinstance(accepted, Damaged) and accepted.nonce == nonce:
                    return entry

    def _catch_up(self, least: int = 0) -> None:
        """Read the entries that the store has listed since, and those up to `least`, which must exist.

        A listing may lag behind, but an entry implies all entries before it.
        """
        after = keys.hashlog_entry(self.prefix, len(self.entries)) if self.entries else ""
        keys_listed = self.store.list(self.prefix, after=after)
        listed = [number for key in keys_listed if (number := keys.numbered(self.prefix, key))]
        last = last_in_reach(listed, max(least, len(self.entries)))
        self.strays = [keys.hashlog_entry(self.prefix, number) for number in listed if number > last]
        numbers = range(len(self.entries) + 1, last + 1)
        bodies = self.store.get_all((keys.hashlog_entry(self.prefix, each) for each in numbers), ENTRY_BYTES + 1)
        for number, data in zip(numbers, bodies, strict=True):
            self._accept(number, data)

    def _encode(self, entry: LogEntry) -> bytes:
        """Encode an entry, and check that it can be read back."""
        data = encode(entry)
        try:
            self._decode(data, entry.seq)
        except DamageError as error:
            raise JournalError(f"{self.prefix}: {error}; it was not written") from error
        return data

    def _decode(self, data: bytes, seq: int) -> L:
        """Parse an entry, and check that it fits this log."""
        entry = decode(data, seq, self.kinds)
        if problem := self.problem(entry):
            raise DamageError(f"journal entry {seq} {problem}")
        return entry

    def _accept(self, seq: int, data: bytes | None) -> None:
        """Add the entry `seq`. Marks the entry before as damaged if this one holds another hash of it."""
        if data is None:
            self.entries.append(Damaged(seq, f"journal entry {seq} is missing"))
            self._tail = ""
            return
        entry: L | Damaged
        try:
            entry = self._decode(data, seq)
            if self._tail and entry.previous != self._tail and not isinstance(self.entries[-1], Damaged):
                self.entries[-1] = Damaged(
                    seq - 1, f"journal entry {seq - 1} was changed after entry {seq} was written"
                )
        except DamageError as error:
            entry = Damaged(seq, str(error))
        self.entries.append(entry)
        self._tail = sha256(data)


def last_in_reach(numbers: Iterable[int], last: int) -> int:
    """The last of the ascending `numbers` that `last` leads to without a gap longer than `MAX_GAP`; else `last`."""
    for number in numbers:
        if number > last + 1 + MAX_GAP:
            break
        last = max(last, number)
    return last


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def encode(entry: LogEntry) -> bytes:
    """Encode an entry as readable JSON with its digest."""
    fields = entry.model_dump(mode="json")
    return json.dumps({**fields, "digest": _digest(fields)}, indent=1).encode() + b"\n"


def decode(data: bytes, seq: int, kinds: TypeAdapter[L]) -> L:
    """Parse an entry.

    Raises:
        DamageError: the bytes are not those that were written.
    """
    if len(data) > ENTRY_BYTES:
        raise DamageError(f"journal entry {seq} is longer than {ENTRY_BYTES:,} bytes, which none is")
    try:
        fields = strict_json.parse(data)
        recorded = fields.pop("digest")
        entry = kinds.validate_python(fields)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamageError(f"journal entry {seq} is unreadable") from error
    if _digest(fields) != recorded:
        raise DamageError(f"journal entry {seq} does not match its own checksum")
    if entry.seq != seq:
        raise DamageError(f"journal entry {seq} says that it is entry {entry.seq}")
    return entry


def _digest(fields: dict[str, object]) -> str:
    return sha256(CANONICAL.encode(fields).encode())
