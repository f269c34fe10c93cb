"""The manifest of built data: its sources, its shards, and the digest that identifies its tokens."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationInfo, model_validator

from headway.data.holdout import FIRST_RULE, SplitRule
from headway.errors import DamageError, DataError, UsageError
from headway.json_manifest import STORED, Manifest, ManifestPart
from headway.localfiles import read_bounded, replacing
from headway.recipe import Recipe, identity
from headway.recipe.schema import Name as SourceName

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SHARDS = "shards"
PLAN = "plan.json"
FORMAT = 1
"""Version of the build: incremented when the same recipe and inputs would give other shards."""
READ_KEYS = frozenset({"block_tokens", "curriculum"})
"""Keys of a recipe's data section that only decide how shards are read."""

MAX_MANIFEST_BYTES = 64 << 20
"""Longest manifest [bytes]: 250,000 shards."""
MAX_PLAN_BYTES = 256 << 20
"""Longest plan [bytes]: more than a million source files."""

Split = Literal["train", "held_out"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A number of tokens, bytes or documents."""


class TokenShard(ManifestPart):
    """A file of tokens in the built data."""

    name: str
    """Name of the file in the folder of shards: `<source>-<unit>.<split>.tokens`."""
    source: SourceName
    split: Split
    tokens: Amount
    bytes: Amount
    sha256: Sha256

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        """Only a name that a build gives, so that it leads to no other folder."""
        if not re.fullmatch(rf"{re.escape(self.source)}-[0-9]{{6,9}}\.{self.split}\.tokens", self.name):
            raise ValueError(f"{self.name!r} is not a name for a shard of {self.source}")
        return self


class InputCounts(ManifestPart):
    """Everything that a source holds, by what became of it."""

    files: Amount
    """Files that match the source's path; a link, and a folder that is left out as a whole, count as one each."""
    files_left_out: dict[str, Amount]
    documents: Amount
    """Documents and records in the files that were read; of a long document, each piece."""
    documents_left_out: dict[str, Amount]
    text_bytes: Amount
    """Length of the texts of the documents that have one [bytes]."""
    text_bytes_kept: Amount
    text_bytes_left_out: Amount


class Provenance(ManifestPart):
    """Inputs and output counts of one source."""

    path: str
    """The source's path, as the recipe states it."""
    files: Amount
    """Files that were read."""
    bytes: Amount
    """Length of these files [bytes]."""
    sha256: Sha256
    """SHA-256 over the SHA-256 of each part of the files, in order; independent of file names."""
    documents: Amount
    """Training documents."""
    tokens: Amount
    """Training tokens, end-of-document tokens included."""
    held_out_documents: Amount
    held_out_tokens: Amount
    dropped: dict[str, Amount]
    """Number of files, lines and documents left out, by reason."""
    input: InputCounts | None = None
    """None in data of before these were counted."""

    def discrepancies(self) -> Iterator[str]:
        """The sums that do not close: something was neither kept nor counted as left out."""
        if self.input is None:
            return
        counts, documents = self.input, self.documents + self.held_out_documents
        for name, total, kept, left_out in (
            ("files", counts.files, self.files, sum(counts.files_left_out.values())),
            ("documents", counts.documents, documents, sum(counts.documents_left_out.values())),
            ("bytes of text", counts.text_bytes, counts.text_bytes_kept, counts.text_bytes_left_out),
        ):
            if total != kept + left_out:
                yield f"{total:,} {name}, {kept:,} of them kept and {left_out:,} left out"


class DataManifest(Manifest):
    """The result of one build."""

    format: int = FORMAT
    meaning: dict[str, Any]
    """The part of the recipe that decides the shards."""
    split_rule: SplitRule = FIRST_RULE
    """How documents are held out (`headway.data.holdout`). No part of the digest: equal shards are equal data."""
    tokenizer_sha256: Sha256
    vocabulary: int = Field(ge=1, le=2**32)
    """Number of tokens that the tokenizer has; a small corpus gives fewer than the recipe requests."""
    end_of_document: int = Field(ge=0, lt=2**32)
    """Id of the token that ends each document."""
    sources: dict[SourceName, Provenance]
    shards: list[TokenShard]
    """All shards, by source, then by position in the source."""

    @model_validator(mode="wrap")
    @classmethod
    def _check_digest(cls, value: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Stored JSON carries the digest of the manifest; it must match."""
        if info.context != STORED or not isinstance(value, dict):
            return validate(value)
        stored = value.pop("digest", None)
        manifest = validate(value)
        if stored != manifest.digest:
            raise ValueError("it was changed after it was written")
        return manifest

    @property
    def digest(self) -> str:
        """SHA-256, in hex, that identifies the tokens; equal inputs and recipes give equal digests on any machine."""
        shards = [[shard.source, shard.split, shard.tokens, shard.sha256] for shard in self.shards]
        text = json.dumps([self.format, self.tokenizer_sha256, self.end_of_document, shards])
        return hashlib.sha256(text.encode()).hexdigest()

    def discrepancies(self) -> list[str]:
        """The sums that do not close, with the source of each."""
        return [f"{name}: {each}" for name, source in self.sources.items() for each in source.discrepancies()]

    def select(self, source: str, split: Split) -> list[TokenShard]:
        """The shards of one source and split, in order."""
        return [shard for shard in self.shards if (shard.source, shard.split) == (source, split)]

    def blocks(self, block_tokens: int, split: Split = "train") -> dict[str, int]:
        """Number of blocks of each source. A source needs one token more than its blocks, for the last target."""
        return {
            name: max(0, (sum(shard.tokens for shard in self.select(name, split)) - 1) // block_tokens)
            for name in sorted(self.sources)
        }

    def encode(self) -> bytes:
        """The manifest as indented JSON, with its digest first."""
        return json.dumps({"digest": self.digest, **self.model_dump(mode="json")}, indent=1).encode() + b"\n"

    def write(self, folder: Path) -> None:
        """Write `manifest.json` to `folder`, atomically."""
        with replacing(folder / MANIFEST) as file:
            file.write(self.encode())


def read_manifest(folder: Path) -> DataManifest | None:
    """The manifest in `folder`, or None if there is none.

    Raises:
        DataError: it cannot be read, or was changed after it was written.
    """
    path = folder / MANIFEST
    try:
        return DataManifest.decode(read_bounded(path, MAX_MANIFEST_BYTES), str(path))
    except FileNotFoundError:
        return None
    except (OSError, UsageError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except DamageError as error:
        raise DataError(f"{error}; delete {folder} and build again") from error


def meaning(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that decides the shards, as plain data."""
    keys = {key: value for key, value in identity.meaning(recipe.data).items() if key not in READ_KEYS}
    return json.loads(json.dumps({"format": FORMAT, **keys}))  # type: ignore[no-any-return]


def check_meaning(folder: Path, built: dict[str, Any], recipe: Recipe) -> None:
    """Refuse a folder whose data was built from a recipe that means other data.

    Raises:
        DataError: names each key that differs.
    """
    requested = meaning(recipe)
    if built == requested:
        return
    before, after = dict(_leaves(built)), dict(_leaves(requested))
    changes = [
        f"data.{key}: {before.get(key)!r} there, {after.get(key)!r} in the recipe"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    raise DataError(
        f"{folder} holds data built from another recipe ({'; '.join(changes)}); "
        "set data.path to another folder, or delete this one"
    )


def check_enough(manifest: DataManifest, recipe: Recipe) -> None:
    """Refuse data that cannot fill one block of each source, or one held-out block.

    Raises:
        DataError: names the source, what was dropped from it, and what to change.
    """
    block = recipe.data.block_tokens
    for name, count in manifest.blocks(block).items():
        source = manifest.sources[name]
        if not count:
            dropped = ", ".join(f"{number:,} × {reason}" for reason, number in source.dropped.items())
            raise DataError(
                f"data.sources.{name}: {source.documents:,} training documents with {source.tokens:,} tokens "
                f"cannot fill one block of {block:,} tokens (held out: {source.held_out_documents:,}; "
                f"dropped: {dropped or 'nothing'}); add documents, or lower data.block_tokens"
            )
    if not any(manifest.blocks(block, "held_out").values()):
        documents = sum(source.held_out_documents for source in manifest.sources.values())
        tokens = max(source.held_out_tokens for source in manifest.sources.values())
        raise DataError(
            f"data: the {documents:,} held-out documents have at most {tokens:,} tokens in one source, less than "
            f"one block of {block:,}; raise data.held_out_share (now {recipe.data.held_out_share}), lower "
            "data.block_tokens, or add documents: each is held out whole or not at all, and a text file is one document"
        )


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, tree
