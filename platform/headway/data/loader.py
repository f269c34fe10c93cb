"""Reads built data for the training loop: micro-batches as a pure function of the token position."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from headway.data.data_manifest import (
    MANIFEST,
    SHARDS,
    TOKENIZER,
    DataManifest,
    Split,
    check_enough,
    check_meaning,
    read_manifest,
)
from headway.data.order import Int64, Order
from headway.data.token_shard import TokenStream, read_header
from headway.data.tokenizer_file import read_tokenizer
from headway.data.verified_shards import VerifiedShards
from headway.errors import DataError, UsageError
from headway.localfiles import file_sha256
from headway.recipe import Recipe

PREFETCH_BATCHES = 2
"""Batches prepared ahead of the current one."""
VERIFIED_BYTES = 16 << 30
"""Shards whose SHA-256 one launch checks before it starts [bytes]: some seconds from a local disk. The next one goes on
with others, and `headway data build` checks all of them."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The rows of one forward pass.

    Attributes:
        inputs: [rows, sequence] tokens.
        targets: [rows, sequence] the token after each input.
        documents: [rows, sequence] index, from 0, of each input's document within its row; None unless attention
            stays inside documents.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int32] | None


class Dataset:
    """Built data, open for reading.

    Attributes:
        manifest: the manifest of the build.
        digest: SHA-256 that identifies the tokens.
        vocabulary: number of tokens that the tokenizer has.
        end_of_document: id of the token that ends each document.
        tokenizer_path: the tokenizer.json.
        tokenizer_sha256: SHA-256 of the tokenizer.json.
        order: the order of the blocks.
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
        self._streams: dict[Split, list[TokenStream]] = {
            split: [
                TokenStream([(folder / SHARDS / shard.name, shard.tokens) for shard in manifest.select(name, split)])
                for name in self.order.sources
            ]
            for split in ("train", "held_out")
        }

    def lane_batches(self, position_tokens: int, lane: int) -> list[MicroBatch]:
        """The micro-batches of one lane of the global batch that starts at `position_tokens`.

        They depend only on the recipe and these two numbers.
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

    def held_out_batches(self, tokens: int) -> list[MicroBatch]:
        """Held-out micro-batches, the same on every call: at most `tokens`, at least one, in rows of whole blocks.

        Each source contributes in proportion to its held-out text, from its start.
        """
        batch_blocks = self.recipe.train.micro_batch_tokens // self.block_tokens
        limit = max(1, tokens // self.recipe.train.micro_batch_tokens) * batch_blocks
        available = self.manifest.blocks(self.block_tokens, "held_out")
        counts = [available[name] for name in self.order.sources]
        sources = np.concatenate([np.full(min(n, limit), index) for index, n in enumerate(counts)])
        blocks = np.concatenate([np.arange(min(n, limit), dtype=np.int64) for n in counts])
        spread = np.lexsort((sources, (blocks + 0.5) / np.array(counts)[sources]))[:limit]
        if len(spread) > batch_blocks:
            spread = spread[: len(spread) // batch_blocks * batch_blocks]
        return self._micro_batches("held_out", sources[spread], blocks[spread], self.block_tokens)

    def _micro_batches(self, split: Split, sources: Int64, blocks: Int64, sequence: int) -> list[MicroBatch]:
        length = self.block_tokens
        tokens = np.empty((len(blocks), length + 1), dtype=np.int64)
        for row, source, block in zip(tokens, sources.tolist(), blocks.tolist(), strict=True):
            self._streams[split][source].read(block * length, row)
        if tokens.max(initial=0) >= self.vocabulary:
            self._refuse_tokens(tokens, [self._streams[split][source] for source in sources.tolist()], blocks)
        batch_blocks = self.recipe.train.micro_batch_tokens // length
        return [
            self._micro_batch(tokens[start : start + batch_blocks], sequence)
            for start in range(0, len(tokens), batch_blocks)
        ]

    def _refuse_tokens(self, tokens: Int64, streams: Sequence[TokenStream], blocks: Int64) -> NoReturn:
        """Name the shard of the first token that is not of the vocabulary; torch would only name an index."""
        row, column = np.argwhere(tokens >= self.vocabulary)[0].tolist()
        path = streams[row].path_of(int(blocks[row]) * self.block_tokens + column)
        raise DataError(
            f"{path}: token {tokens[row, column]:,} is not of the vocabulary of {self.vocabulary:,}; "
            "run `headway data build RECIPE` to repair it"
        )

    def _micro_batch(self, tokens: Int64, sequence: int) -> MicroBatch:
        """Split blocks, [n, L + 1], into rows of `sequence` tokens."""
        inputs = tokens[:, :-1].reshape(-1, sequence)
        targets = tokens[:, 1:].reshape(-1, sequence)
        documents = None
        if self.recipe.model.needs_documents:
            documents = np.zeros(inputs.shape, dtype=np.int32)
            np.cumsum(inputs[:, :-1] == self.end_of_document, axis=1, out=documents[:, 1:])
        return MicroBatch(inputs, targets, documents)


def open_data(recipe: Recipe, *, verify: bool = False) -> Dataset:
    """Open the data built for `recipe`, after checking that its files belong together.

    Reads the manifest, the tokenizer and the header of each shard. To `verify` also reads shards that this user has not
    read before, up to `VERIFIED_BYTES` at a time, and checks their SHA-256.

    Raises:
        DataError: it is not built, was built from another recipe, or a file is missing, damaged or of another build.
    """
    folder = Path(recipe.data_path)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(f"no built data in {folder}: run `headway data build RECIPE` first")
    check_meaning(folder, manifest.meaning, recipe)
    check_enough(manifest, recipe)
    try:
        check_files(folder, manifest)
        if verify:
            VerifiedShards(folder).check(manifest.shards, limit=VERIFIED_BYTES)
    except DataError as error:
        raise DataError(f"{error}; run `headway data build RECIPE` to repair it") from error
    return Dataset(recipe, folder, manifest)


def check_files(folder: Path, manifest: DataManifest) -> None:
    """Check that the files in `folder` are those of its manifest, without reading their tokens.

    Raises:
        DataError: a file is missing, or comes from another build; names it.
    """
    path = folder / TOKENIZER
    try:
        tokenizer = file_sha256(path)
    except (OSError, UsageError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if tokenizer != manifest.tokenizer_sha256:
        raise DataError(
            f"tokenizer does not match the shards: {path} has SHA-256 {tokenizer}, the shards were "
            f"made with {manifest.tokenizer_sha256}"
        )
    if (size := read_tokenizer(path).size) != manifest.vocabulary:
        raise DataError(f"{folder / MANIFEST}: says that {path} has {manifest.vocabulary:,} tokens; it has {size:,}")
    for shard in manifest.shards:
        path = folder / SHARDS / shard.name
        header = read_header(path)
        if header.tokenizer_sha256 != tokenizer:
            raise DataError(
                f"tokenizer does not match the shards: {path} was made with the tokenizer of SHA-256 "
                f"{header.tokenizer_sha256}, {folder / TOKENIZER} has {tokenizer}"
            )
        if (header.size, header.tokens) != (shard.bytes, shard.tokens):
            raise DataError(f"{path}: has {header.tokens:,} tokens, the manifest says {shard.tokens:,}")


class Prefetcher:
    """Prepares the next batches of some lanes on its own thread, so that steps do not wait for data.

    Holds at most `PREFETCH_BATCHES` batches and the current one.
    """

    def __init__(
        self, dataset: Dataset, lanes: Sequence[int], transfer: Callable[[MicroBatch], Any] = lambda batch: batch
    ) -> None:
        """`transfer` moves each micro-batch to its device, on that thread; `get` returns its results."""
        self.dataset, self.transfer = dataset, transfer
        self.lanes = tuple(lanes)
        self._thread = ThreadPoolExecutor(1, "headway-data")
        self._ready: dict[int, Future[list[list[Any]]]] = {}

    def get(self, position_tokens: int) -> list[list[Any]]:
        """The micro-batches of each lane at any position. Starts preparing the batches after it.

        Raises:
            Any error raised while reading that position.
        """
        step = self.dataset.recipe.train.batch_tokens
        positions = [position_tokens + step * ahead for ahead in range(PREFETCH_BATCHES + 1)]
        for position in self._ready.keys() - set(positions):
            self._ready.pop(position).cancel()
        for position in positions:
            if position not in self._ready:
                self._ready[position] = self._thread.submit(self._prepare, position)
        return self._ready.pop(position_tokens).result()

    def close(self) -> None:
        """Stop the thread that prefetches batches."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, position_tokens: int) -> list[list[Any]]:
        return [
            [self.transfer(batch) for batch in self.dataset.lane_batches(position_tokens, lane)] for lane in self.lanes
        ]
