"""The holdout: the documents that are kept out of training, for evaluation.

Rule 2 hashes the start of a whole document, so the pieces that a long one is cut into are on one side. Rule 1, of data
without a rule in its manifest, hashed each piece. Documents that are not cut are on the same side by both.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import xxhash

HASHED_BYTES = 1 << 20
"""How much of a document is hashed [bytes]: more than the headers and licenses that many files begin with."""
SplitRule = Literal[1, 2]
FIRST_RULE: SplitRule = 1
"""The rule of data that names none."""
NEWEST_RULE: SplitRule = 2


class Document(NamedTuple):
    """A document's text, as a string and as the UTF-8 bytes that are counted; of a long document, one piece."""

    text: str
    raw: bytes
    start_hash: int
    """Hash of the start of the whole document."""


@dataclass(frozen=True)
class Holdout:
    """The share of the documents that is held out, and the rule that selects them.

    Only a hash of the text decides, so equal documents are on the same side in every file and source.
    """

    share: float
    rule: SplitRule = NEWEST_RULE

    def includes(self, document: Document) -> bool:
        """Whether this document is kept out of training."""
        number = document.start_hash if self.rule == NEWEST_RULE else xxhash.xxh3_64_intdigest(document.raw)
        return number < int(self.share * 2**64)


def start_hash(text: bytes) -> int:
    """The hash that decides on a document, from its text or the first `HASHED_BYTES` of it."""
    return xxhash.xxh3_64_intdigest(text if len(text) <= HASHED_BYTES else memoryview(text)[:HASHED_BYTES])
