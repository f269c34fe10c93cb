"""The kinds of entry of a model's journal, and what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from headway.runs.hashlog import Damaged, LogEntry


class Published(LogEntry):
    """A version became true."""

    kind: Literal["published"] = "published"
    version: int
    """1, 2, 3 ..."""
    manifest: str
    """Key of the manifest."""
    sha256: str
    """Of the manifest's bytes."""
    bytes: int
    """Of all files."""
    content: str
    """Digest of the files and of where they came from: what makes two publications the same."""


class Aliased(LogEntry):
    """An alias points at a version from now on."""

    kind: Literal["aliased"] = "aliased"
    alias: str
    version: int


Entry = Annotated[Published | Aliased, Field(discriminator="kind")]
KINDS: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass
class ModelHistory:
    """What a model's journal says: pure functions of its entries."""

    published: dict[int, Published] = field(default_factory=dict)
    """By version, oldest first."""
    aliased: dict[str, Aliased] = field(default_factory=dict)
    """The last entry about each alias, by alias."""
    damaged: list[Damaged] = field(default_factory=list)
    next: int = 1
    """The number that the next version gets. A damaged entry may have been a version, and no number is used twice."""

    def doubt(self, alias: str) -> Damaged | None:
        """A damaged entry that may have moved an alias since it was last seen to move."""
        since = self.aliased[alias].seq if alias in self.aliased else 0
        return next((entry for entry in self.damaged if entry.seq > since), None)


def fold_model(entries: Sequence[Entry | Damaged]) -> ModelHistory:
    """Derive a model's history from its journal."""
    history = ModelHistory()
    for entry in entries:
        match entry:
            case Damaged():
                history.damaged.append(entry)
                history.next += 1
            case Published():
                history.published.setdefault(entry.version, entry)
                history.next = max(history.next, entry.version + 1)
            case Aliased():
                history.aliased.pop(entry.alias, None)
                history.aliased[entry.alias] = entry
    return history
