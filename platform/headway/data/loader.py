"""What the training loop is fed: micro-batches as a pure function of the token position."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headway.data import data_manifest as manifests
from headway.data import token_shard as shards
from headway.data import tokenizer as tokenizers
from headway.data.data_manifest import SHARDS, TOKENIZER, DataManifest, Split
from headway.data.order import Int64, Order
from headway.errors import DataError
from headway.recipe import Recipe

AHEAD = 2
"""Batches prepared before they are asked for."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What goes through the model at once.

    Attributes:
        inputs: [rows, sequence] tokens.
        targets: [rows, sequence] the token after each input.
        documents: [rows, sequence] place of each input's document in its row, from 0; None unless attention keeps
            inside documents.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int32] | None


class Dataset:
    """Built data, open for reading.

    Attributes:
        manifest: what was built.
        digest: SHA-256 that identifies the tokens.
        vocabulary: number of tokens that the tokenizer has.
        end_of_document: id of the token that ends each document.
        tokenizer_path: the tokenizer.json.
        tokenizer_sha256: its SHA-256.
        order: which block comes when.
    """

    def __init__(self, recipe: Recipe, folder: Path, manifest: DataManifest) -> None:
        self.recipe = recipe
        self.manifest = manifest
        self.digest = manifest.digest
        self.vocabulary = manifest.vocabulary
        self.end_of_document = manifest.end_of_document
        self.tokenizer_path = folder / TOKENIZER
        self.tokenizer_sha256 = manifest.tokenizer_sha256
        self.block_tokens = recipe.data.block_tokens
        self.order = Order(recipe, manifest.blocks(self.block_tokens))
        self._streams: dict[Split, list[shards.Stream]] = {
            split: [
                shards.Stream([(folder / SHARDS / shard.name, shard.tokens) for shard in manifest.select(name, split)])
                for name in self.order.sources
            ]
            for split in ("train", "held_out")
        }

    def lane(self, position_tokens: int, lane: int) -> list[MicroBatch]:
        """The micro-batches of one lane of the global batch that starts at `position_tokens`.

        Depends on nothing but the recipe and these two numbers.
        """
        train = self.recipe.train
        if position_tokens < 0 or position_tokens % self.block_tokens:
            raise ValueError(f"position {position_tokens:,} is not at the start of a block")
        if not 0 <= lane < train.lanes:
            raise ValueError(f"lane {lane} of {train.lanes}")
        count = train.batch_tokens // train.lanes // self.block_tokens
        first = position_tokens // self.block_tokens + lane * count
        sources, blocks = self.order.locate(np.arange(first, first + count, dtype=np.int64))
        return self._micro_batches("train", sources, blocks, self.order.sequence_tokens(position_tokens))

    def held_out(self, tokens: int) -> list[MicroBatch]:
        """The same held-out micro-batches each time: at most `tokens`, at least one, in rows of whole blocks.

        Sources take part in proportion to their held-out text, from the start of each one's.
        """
        each = self.recipe.train.micro_batch_tokens // self.block_tokens
        wanted = max(1, tokens // self.recipe.train.micro_batch_tokens) * each
        there = self.manifest.blocks(self.block_tokens, "held_out")
        counts = [there[name] for name in self.order.sources]
        sources = np.concatenate([np.full(min(n, wanted), index) for index, n in enumerate(counts)])
        blocks = np.concatenate([np.arange(min(n, wanted), dtype=np.int64) for n in counts])
        spread = np.lexsort((sources, (blocks + 0.5) / np.array(counts)[sources]))[:wanted]
        if len(spread) > each:
            spread = spread[: len(spread) // each * each]
        return self._micro_batches("held_out", sources[spread], blocks[spread], self.block_tokens)

    def _micro_batches(self, split: Split, sources: Int64, blocks: Int64, sequence: int) -> list[MicroBatch]:
        length = self.block_tokens
        tokens = np.empty((len(blocks), length + 1), dtype=np.int64)
        for row, source, block in zip(tokens, sources.tolist(), blocks.tolist(), strict=True):
            self._streams[split][source].read(block * length, row)
        each = self.recipe.train.micro_batch_tokens // length
        return [self._micro_batch(tokens[at : at + each], sequence) for at in range(0, len(tokens), each)]

    def _micro_batch(self, tokens: Int64, sequence: int) -> MicroBatch:
        """Cut blocks, [n, L + 1], into rows of `sequence` tokens."""
        inputs = tokens[:, :-1].reshape(-1, sequence)
        targets = tokens[:, 1:].reshape(-1, sequence)
        documents = None
        if self.recipe.model.attention == "document":
            documents = np.zeros(inputs.shape, dtype=np.int32)
            np.cumsum(inputs[:, :-1] == self.end_of_document, axis=1, out=documents[:, 1:])
        return MicroBatch(inputs, targets, documents)


def open_data(recipe: Recipe) -> Dataset:
    """Open the data built for `recipe`, after checking that all its parts belong together.

    Reads the manifest, the tokenizer and the first bytes of each shard; not the tokens.

    Raises:
        DataError: it is not built, was built from another recipe, or a part is missing or of another build.
    """
    folder = Path(recipe.data_path)
    again = "run `headway data build RECIPE`"
    manifest = manifests.read(folder)
    if manifest is None:
        raise DataError(f"no built data in {folder}: {again} first")
    manifests.check_meaning(folder, manifest.meaning, recipe)
    manifests.check_enough(manifest, recipe)
    try:
        tokenizer = tokenizers.sha256(folder / TOKENIZER)
    except OSError as error:
        raise DataError(f"{folder / TOKENIZER}: cannot be read: {error.strerror}; {again} to mend it") from error
    if tokenizer != manifest.tokenizer_sha256:
        raise DataError(
            f"tokenizer does not match the shards: {folder / TOKENIZER} has SHA-256 {tokenizer}, the shards were "
            f"made with {manifest.tokenizer_sha256}; {again} to mend it"
        )
    for shard in manifest.shards:
        path = folder / SHARDS / shard.name
        try:
            header = shards.header(path)
        except DataError as error:
            raise DataError(f"{error}; {again} to mend it") from error
        if header.tokenizer_sha256 != tokenizer:
            raise DataError(
                f"tokenizer does not match the shards: {path} was made with the tokenizer of SHA-256 "
                f"{header.tokenizer_sha256}, {folder / TOKENIZER} has {tokenizer}; {again} to mend it"
            )
        if (header.size, header.tokens) != (shard.bytes, shard.tokens):
            raise DataError(
                f"{path}: has {header.tokens:,} tokens, the manifest says {shard.tokens:,}; {again} to mend it"
            )
    return Dataset(recipe, folder, manifest)


class Prefetcher:
    """Prepares the next batches of some lanes on a thread of its own, so that a step does not wait for data.

    At most `AHEAD` batches and the one that is asked for are held.
    """

    def __init__(
        self, dataset: Dataset, lanes: Sequence[int], place: Callable[[MicroBatch], Any] = lambda batch: batch
    ) -> None:
        """`place` takes each micro-batch to where it is wanted, on that thread; `get` then returns what it returned."""
        self.dataset, self.place = dataset, place
        self.lanes = tuple(lanes)
        self._thread = ThreadPoolExecutor(1, "headway-data")
        self._ready: dict[int, Future[list[list[Any]]]] = {}

    def get(self, position_tokens: int) -> list[list[Any]]:
        """The micro-batches of each lane at a position, any position; the ones after it are begun.

        Raises:
            whatever reading that position raised.
        """
        step = self.dataset.recipe.train.batch_tokens
        wanted = [position_tokens + step * ahead for ahead in range(AHEAD + 1)]
        for position in self._ready.keys() - set(wanted):
            self._ready.pop(position).cancel()
        for position in wanted:
            if position not in self._ready:
                self._ready[position] = self._thread.submit(self._prepare, position)
        return self._ready.pop(position_tokens).result()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, position_tokens: int) -> list[list[Any]]:
        return [[self.place(batch) for batch in self.dataset.lane(position_tokens, lane)] for lane in self.lanes]
