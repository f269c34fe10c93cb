"""The entries of a model's journal, and the model's state derived from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from headway.runs.hashlog import Damaged, LogEntry


class Published(LogEntry):
    """A version was published."""

    kind: Literal["published"] = "published"
    version: int
    """Version number, from 1."""
    manifest: str
    """Key of the version's manifest."""
    sha256: str
    """SHA-256 of the manifest."""
    bytes: int
    """Size of all files together."""
    content: str
    """Digest of the files and their origin; equal for two publications of the same content."""


class Aliased(LogEntry):
    """An alias was pointed at a version."""

    kind: Literal["aliased"] = "aliased"
    alias: str
    version: int


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


def fold_model(entries: Sequence[ModelEntry | Damaged]) -> ModelHistory:
    """Derive a model's state from its journal."""
    history = ModelHistory()
    for entry in entries:
        match entry:
            case Damaged():
                history.damaged.append(entry)
                history.next_number += 1
            case Published():
                history.published.setdefault(entry.version, entry)
                history.next_number = max(history.next_number, entry.version + 1)
            case Aliased():
                history.aliased.pop(entry.alias, None)
                history.aliased[entry.alias] = entry
    return history
