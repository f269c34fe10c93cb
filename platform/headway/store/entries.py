"""The kinds of journal entry, and how one is turned into bytes and back.

An entry's `digest` covers all its other fields, and `previous` is the SHA-256 of the whole entry before it, so
neither an entry nor the history can be damaged or edited unseen.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from headway.errors import DamageError


class Holder(BaseModel):
    """Who writes: enough for a person to find the process, and for a program to see whether it lives."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    started: int
    """Start time of the process in clock ticks since boot (`/proc/PID/stat`), so a reused pid is told apart."""
    launch: str
    """Id of the `headway train` that started it."""
    job: str | None = None
    """SLURM job id."""
    restart: int = 0
    """How often SLURM had requeued that job before."""
    trace: str | None = None
    """W3C `traceparent`."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int
    attempt: int
    time: float
    """Seconds since 1970, by the writer's clock."""
    nonce: str
    """Tells a writer's own entry, written although the answer was lost, from another's."""
    previous: str


class Claimed(_Entry):
    """An attempt begins; its number is this entry's `seq`. All earlier attempts are fenced."""

    kind: Literal["claimed"] = "claimed"
    holder: Holder
    recipe: str
    """Digest of the run's recipe."""
    data: str | None = None
    """Digest of the run's data."""
    lost_at: float | None = None
    """When the attempt before was last seen alive, if it never said how it ended."""


class Committed(_Entry):
    """A checkpoint became true."""

    kind: Literal["committed"] = "committed"
    tokens: int
    manifest: str
    """Key of the manifest."""
    sha256: str
    """Of the manifest's bytes."""
    bytes: int
    """Of all shards."""


class Decided(_Entry):
    """What was done about a bad batch: the batches from `skip_from` up to `skip_to` do not count."""

    kind: Literal["decided"] = "decided"
    action: Literal["skip", "rollback", "stop"]
    reason: str
    skip_from: int
    skip_to: int
    restored: int | None = None
    """The position that a roll-back returns to. Not that of some commit: those depend on when a run was killed."""


class Pruned(_Entry):
    """Checkpoints given up by retention; written before their objects are deleted."""

    kind: Literal["pruned"] = "pruned"
    manifests: list[str]


class Ended(_Entry):
    """How an attempt ended."""

    kind: Literal["ended"] = "ended"
    outcome: Literal["done", "preempted", "failed"]
    reason: str
    tokens: int
    host: str | None = None
    """The machine on which it failed, if one is to blame."""


Entry = Annotated[Claimed | Committed | Decided | Pruned | Ended, Field(discriminator="kind")]
_adapter: TypeAdapter[Entry] = TypeAdapter(Entry)


def sha256(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def encode(entry: Entry) -> bytes:
    """An entry as JSON that a person can read, with its digest."""
    fields = entry.model_dump(mode="json")
    return json.dumps({**fields, "digest": _digest(fields)}, indent=1).encode() + b"\n"


def decode(data: bytes, seq: int) -> Entry:
    """An entry from its bytes.

    Raises:
        DamageError: they are not what was written.
    """
    try:
        fields = json.loads(data)
        recorded = fields.pop("digest")
        entry = _adapter.validate_python(fields)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise DamageError(f"journal entry {seq} is not readable as one") from error
    if _digest(fields) != recorded:
        raise DamageError(f"journal entry {seq} does not match its own checksum")
    if entry.seq != seq:
        raise DamageError(f"journal entry {seq} says that it is entry {entry.seq}")
    return entry


def _digest(fields: dict[str, object]) -> str:
    return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
