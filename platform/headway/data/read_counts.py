"""What readers of a source met: how much of it became documents, and how much was left out, by reason."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ReadCounts:
    """Counts of one unit, kept by its reader.

    Attributes:
        documents: documents that were met; records without text, and what damage hides, count as one each.
        text_bytes: length of their texts, where there is one [bytes].
        dropped: documents left out, by reason.
        dropped_bytes: length of their texts [bytes].
    """

    documents: int = 0
    text_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: int = 0

    def drop(self, reason: str) -> None:
        """Count a document that has no text."""
        self.documents += 1
        self.dropped[reason] += 1

    def drop_text(self, reason: str, size: int) -> None:
        """Leave out a document that was met already, with a text of `size` bytes."""
        self.dropped[reason] += 1
        self.dropped_bytes += size
