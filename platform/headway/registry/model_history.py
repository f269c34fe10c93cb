"""The entries of a model's journal, and the model's state derived from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from headway.runs import keys
from headway.runs.field_types import ByteCount, Digest
from headway.runs.hashlog import Damaged, LogEntry

AliasName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,99}$")]


class Published(LogEntry):
    """A version was published."""

    kind: Literal["published"] = "published"
    version: int = Field(ge=1)
    """Version number, from 1."""
    manifest: str
    """Key of the version's manifest."""
    sha256: Digest
    """SHA-256 of the manifest."""
    bytes: ByteCount
    """Size of all files together."""
    content: Digest
    """Digest of the files and their origin; equal for two publications of the same content."""


class Aliased(LogEntry):
    """An alias was pointed at a version."""

    kind: Literal["aliased"] = "aliased"
    alias: AliasName
    version: int = Field(ge=1)


ModelEntry = Annotated[Published | Aliased, Field(discriminator="kind")]
ENTRY_TYPES: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)


@dataclass
class ModelHistory:
    """The state of a model: a pure function of its journal."""

    published: dict[int, Published] = field(default_factory=dict)
    """Versions by number, oldest first."""
    aliased: dict[str, Aliased] = field(default_factory=dict)
    """The last entry of each alias, by alias."""
    damaged: list[Damaged] = field(default_factory=list)
    next_number: int = 1
    """Number of the next version. A damaged entry counts as a version, so no number is used twice."""

    def possible_move(self, alias: str) -> Damaged | None:
        """The first damaged entry after the last known move of an alias: it may have moved the alias."""
        since = self.aliased[alias].seq if alias in self.aliased else 0
        return next((entry for entry in self.damaged if entry.seq > since), None)


def fold_model(model: str, entries: Sequence[ModelEntry | Damaged]) -> ModelHistory:
    """Derive a model's state from its journal. An entry that no publication writes counts as damaged."""
    history = ModelHistory()
    for entry in entries:
        match _checked(model, entry):
            case Damaged() as damaged:
                history.damaged.append(damaged)
                history.next_number += 1
            case Published() as published:
                history.published.setdefault(published.version, published)
                history.next_number = max(history.next_number, published.version + 1)
            case Aliased() as aliased:
                history.aliased.pop(aliased.alias, None)
                history.aliased[aliased.alias] = aliased
    return history


def _checked(model: str, entry: ModelEntry | Damaged) -> ModelEntry | Damaged:
    """The entry, or its damage if it says what no entry of this model can say."""
    if isinstance(entry, Published) and not keys.is_version_manifest(model, entry.manifest):
        return Damaged(entry.seq, f"journal entry {entry.seq} names a manifest that no version of {model} has")
    if not isinstance(entry, Damaged) and entry.version > entry.seq:
        return Damaged(entry.seq, f"journal entry {entry.seq} names version {entry.version}, which cannot exist yet")
    return entry
