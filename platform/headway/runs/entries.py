"""The kinds of entries in a run's journal."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer

from headway.runs import hashlog
from headway.runs.field_types import ByteCount, Count, Digest, JobId, Line, Moment, Number, Text, Tokens
from headway.runs.hashlog import LogEntry, encode, sha256

__all__ = [
    "KINDS", "Claimed", "Committed", "Decided", "Ended", "Entry", "Holder", "Pruned", "decode", "encode", "sha256"
]  # fmt: skip


class Holder(BaseModel):
    """The process that holds a run: enough to find it, and to check whether it lives."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: Line
    pid: Count
    started: ByteCount
    """Start time of the process in clock ticks since boot (`/proc/PID/stat`). Distinguishes reused pids."""
    launch: Line
    """Id of the `headway train` command that started it."""
    job: JobId | None = None
    """SLURM job id."""
    restart: Count = 0
    """Number of times that SLURM had requeued the job before."""
    trace: Line | None = None
    """W3C `traceparent`."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


class _Entry(LogEntry):
    attempt: Number


class Claimed(_Entry):
    """An attempt begins. Its number is the entry's `seq`. Fences all earlier attempts."""

    kind: Literal["claimed"] = "claimed"
    holder: Holder
    recipe: Line
    """Digest of the run's recipe."""
    data: Line | None = None
    """Digest of the run's data."""
    lost_at: Moment | None = None
    """When the previous attempt was last seen alive [s since 1970], if it recorded no end."""


class Committed(_Entry):
    """A checkpoint is complete and counts from now on."""

    kind: Literal["committed"] = "committed"
    tokens: Tokens
    manifest: str
    """Key of the manifest: that of the checkpoint of this run, these tokens and this attempt."""
    sha256: Digest
    """SHA-256 of the manifest's bytes."""
    bytes: ByteCount
    """Total size of the shards [bytes]."""


class Decided(_Entry):
    """A decision about a bad batch: batches from `skip_from` up to `skip_to` [tokens] are skipped.

    Or of a person, to go back to a checkpoint; no batch is skipped then, and decisions about later batches end.
    """

    kind: Literal["decided"] = "decided"
    action: Literal["skip", "rollback", "stop"]
    reason: Text
    skip_from: Tokens
    skip_to: Tokens
    restored: Tokens | None = None
    """Position that a roll-back returns to [tokens]. Not a commit's: commits depend on when a run was killed."""
    by: Text | None = None
    """The person who decided, as `user@host`; None for a decision that follows from the recipe."""

    @model_serializer(mode="wrap")
    def _serialize(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields; without `by` where nobody decided, as versions of Headway that do not know it read it."""
        document: dict[str, Any] = fields(self)
        if self.by is None:
            document.pop("by", None)
        return document


class Pruned(_Entry):
    """Checkpoints that retention removes. Written before their objects are deleted."""

    kind: Literal["pruned"] = "pruned"
    manifests: list[str]
    """Keys of manifests of this run."""


class Ended(_Entry):
    """An attempt has ended."""

    kind: Literal["ended"] = "ended"
    outcome: Literal["done", "preempted", "failed"]
    reason: Text
    tokens: Tokens
    host: Line | None = None
    """Host that caused the failure, if one did."""


Entry = Annotated[Claimed | Committed | Decided | Pruned | Ended, Field(discriminator="kind")]
KINDS: TypeAdapter[Entry] = TypeAdapter(Entry)


def decode(data: bytes, seq: int) -> Entry:
    """Parse an entry.

    Raises:
        DamageError: the bytes are not those that were written.
    """
    return hashlog.decode(data, seq, KINDS)
