"""The manifest of built data: what went in, what came out, and the digest that identifies it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from headway.data.token_shard import replacing
from headway.errors import DataError
from headway.recipe import Recipe, identity

NAME = "manifest.json"
TOKENIZER = "tokenizer.json"
SHARDS = "shards"
FORMAT = 1
"""Raised when the same recipe and inputs would give other shards."""
READ_ANEW = frozenset({"block_tokens", "curriculum"})
"""Keys of a recipe's data section that do not shape the shards: they say how the shards are read."""

Split = Literal["train", "held_out"]


class SourceRecord(BaseModel):
    """Plain data that is written as JSON; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenShard(SourceRecord):
    """One shard file."""

    name: str
    source: str
    split: Split
    tokens: int
    bytes: int
    sha256: str


class Provenance(SourceRecord):
    """What became of one source."""

    path: str
    """Where it came from, as the recipe says it."""
    files: int
    bytes: int
    """Length of its files [bytes]."""
    sha256: str
    """SHA-256 over the SHA-256 of each part of its files, in order; independent of their names."""
    documents: int
    """Documents for training."""
    tokens: int
    """Tokens for training, each document's end included."""
    held_out_documents: int
    held_out_tokens: int
    dropped: dict[str, int]
    """Files, lines and documents left out, by reason."""


class DataManifest(SourceRecord):
    """All that is true of one build."""

    format: int = FORMAT
    meaning: dict[str, Any]
    """The part of the recipe that shapes the shards."""
    tokenizer_sha256: str
    vocabulary: int
    """Tokens that the tokenizer has; a small corpus does not reach what the recipe asks for."""
    end_of_document: int
    """Id of the token that ends each document."""
    sources: dict[str, Provenance]
    shards: list[TokenShard]
    """By source, then by place in it."""

    @property
    def digest(self) -> str:
        """SHA-256, in hex, that identifies the tokens: equal inputs and recipes give equal ones on any machine."""
        shards = [[shard.source, shard.split, shard.tokens, shard.sha256] for shard in self.shards]
        text = json.dumps([self.format, self.tokenizer_sha256, self.end_of_document, shards])
        return hashlib.sha256(text.encode()).hexdigest()

    def select(self, source: str, split: Split) -> list[TokenShard]:
        """The shards of one source and split, in order."""
        return [shard for shard in self.shards if (shard.source, shard.split) == (source, split)]

    def blocks(self, block_tokens: int, split: Split = "train") -> dict[str, int]:
        """Number of blocks of each source; a block has one token more than its length, its last target."""
        return {
            name: max(0, (sum(shard.tokens for shard in self.select(name, split)) - 1) // block_tokens)
            for name in sorted(self.sources)
        }

    def write(self, folder: Path) -> None:
        """Put `manifest.json` in `folder`, whole or not at all."""
        with replacing(folder / NAME) as file:
            text = json.dumps({"digest": self.digest, **self.model_dump(mode="json")}, indent=1)
            file.write(text.encode() + b"\n")


def read(folder: Path) -> DataManifest | None:
    """The manifest in `folder`, or None if there is none.

    Raises:
        DataError: it cannot be read, or was changed after it was written.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
        digest = found.pop("digest", None)
        manifest = DataManifest.model_validate(found)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a manifest of built data; delete {folder} and build again") from error
    if digest != manifest.digest:
        raise DataError(f"{path}: was changed after it was written; delete {folder} and build again")
    return manifest


def meaning(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that shapes the shards, as plain data."""
    found = {key: value for key, value in identity.meaning(recipe.data).items() if key not in READ_ANEW}
    return json.loads(json.dumps({"format": FORMAT, **found}))  # type: ignore[no-any-return]


def check_meaning(folder: Path, built: dict[str, Any], recipe: Recipe) -> None:
    """Refuse a folder whose data was built from a recipe that means other data.

    Raises:
        DataError: names each key that differs.
    """
    wanted = meaning(recipe)
    if built == wanted:
        return
    before, after = dict(_leaves(built)), dict(_leaves(wanted))
    changes = [
        f"data.{key}: {before.get(key)!r} there, {after.get(key)!r} in the recipe"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    raise DataError(
        f"{folder} holds data of another meaning ({'; '.join(changes)}); "
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
                f"cannot fill one block of {block:,} tokens (dropped: {dropped or 'nothing'}); "
                "add text, or lower data.block_tokens"
            )
    if not any(manifest.blocks(block, "held_out").values()):
        documents = sum(source.held_out_documents for source in manifest.sources.values())
        tokens = max(source.held_out_tokens for source in manifest.sources.values())
        raise DataError(
            f"data: the {documents:,} held-out documents have at most {tokens:,} tokens in one source, less than "
            f"one block of {block:,}; raise data.held_out_share (now {recipe.data.held_out_share}), add text, lower "
            "data.block_tokens, or cut long documents by lowering data.document_bytes"
        )


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, tree
