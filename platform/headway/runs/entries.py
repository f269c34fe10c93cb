"""The kinds of entry of a run's journal."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from headway.runs import hashlog
from headway.runs.hashlog import LogEntry, encode, sha256

__all__ = [
    "KINDS", "Claimed", "Committed", "Decided", "Ended", "Entry", "Holder", "Pruned", "decode", "encode", "sha256"
]  # fmt: skip


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


class _Entry(LogEntry):
    attempt: int


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
KINDS: TypeAdapter[Entry] = TypeAdapter(Entry)


def decode(data: bytes, seq: int) -> Entry:
    """An entry from its bytes.

    Raises:
        DamageError: they are not what was written.
    """
    return hashlog.decode(data, seq, KINDS)
