"""Reading built data."""

import dataclasses
import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headway.data import Dataset, MicroBatch, Prefetcher, open_data
from headway.data.build import build
from headway.data.token_shard import ShardWriter, TokenStream, map_tokens, read_header
from headway.errors import DataError
from headway.localfiles import replacing
from headway.recipe import Recipe

Recipes = Callable[..., Recipe]
BLOCK, BATCH, MICRO, LANES = 64, 1024, 128, 4


def stream(dataset: Dataset, source: str, split: str = "train") -> np.ndarray:
    """All tokens of a source."""
    folder = dataset.tokenizer_path.parent / "shards"
    shards = [shard for shard in dataset.manifest.shards if (shard.source, shard.split) == (source, split)]
    return np.concatenate([map_tokens(folder / shard.name) for shard in shards]).astype(np.int64)


def rows(batches: list[MicroBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of micro-batches, one after the other."""
    return np.concatenate([one.inputs for one in batches]), np.concatenate([one.targets for one in batches])


def test_a_lane_is_its_slice_of_the_batch(dataset: Dataset) -> None:
    """The lanes of a batch, in order, are the blocks that the order names; targets are one token on."""
    position = 7 * BATCH
    lanes = [dataset.lane_batches(position, lane) for lane in range(LANES)]
    assert [len(lane) for lane in lanes] == [BATCH // LANES // MICRO] * LANES
    assert {one.inputs.shape for lane in lanes for one in lane} == {(MICRO // BLOCK, BLOCK)}
    inputs, targets = rows([one for lane in lanes for one in lane])
    assert inputs.dtype == targets.dtype == np.int64
    sources, blocks = dataset.order.locate(position // BLOCK + np.arange(BATCH // BLOCK, dtype=np.int64))
    for row, target, source, block in zip(inputs, targets, sources, blocks, strict=True):
        tokens = stream(dataset, dataset.order.sources[source])[block * BLOCK : (block + 1) * BLOCK + 1]
        np.testing.assert_array_equal(row, tokens[:-1])
        np.testing.assert_array_equal(target, tokens[1:])


def test_an_epoch_reads_every_block_once(dataset: Dataset) -> None:
    """One epoch of batches covers the stream of each source, each block once."""
    blocks = dataset.manifest.blocks(BLOCK)
    total = sum(blocks.values())
    batches = [dataset.lane_batches(at * BATCH, lane) for at in range(total * BLOCK // BATCH) for lane in range(LANES)]
    read = {row.tobytes() for lane in batches for one in lane for row in one.inputs}
    expected = {
        stream(dataset, name)[block * BLOCK : (block + 1) * BLOCK].tobytes()
        for name, count in blocks.items()
        for block in range(count)
    }
    assert read <= expected
    assert len(read) > total - 2 * BATCH // BLOCK


def test_rows_are_as_long_as_the_stage_says(dataset: Dataset) -> None:
    """A stage of shorter sequences splits the same blocks into more rows."""
    long = dataset.recipe
    document = json.loads(long.model_dump_json())
    document["data"]["curriculum"] = [{"sequence_tokens": 16}, {"from_tokens": BATCH}]
    short = open_data(Recipe.model_validate(document))
    assert [one.inputs.shape for one in short.lane_batches(0, 0)] == [(8, 16)] * 2
    assert [one.inputs.shape for one in short.lane_batches(BATCH, 0)] == [(2, 64)] * 2
    for a, b in zip(rows(short.lane_batches(0, 1)), rows(dataset.lane_batches(0, 1)), strict=True):
        np.testing.assert_array_equal(a.reshape(-1), b.reshape(-1))


def test_document_indices_exist_only_for_document_attention(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """Each row numbers its documents from 0; the end-of-document token belongs to its document."""
    build(recipes(corpus), workers=1)
    assert all(one.documents is None for one in open_data(recipes(corpus)).lane_batches(0, 0))
    dataset = open_data(recipes(corpus, model={"attention": "document"}))
    several = 0
    for one in (one for at in range(8) for one in dataset.lane_batches(at * BATCH, 0)):
        assert one.documents is not None
        assert one.documents.dtype == np.int32
        for tokens, documents in zip(one.inputs.tolist(), one.documents.tolist(), strict=True):
            expected = 0
            for token, document in zip(tokens, documents, strict=True):
                assert document == expected
                expected += token == dataset.end_of_document
            several += expected
    assert several


def test_held_out_batches_are_fixed_and_never_trained_on(dataset: Dataset) -> None:
    """At most the requested tokens, at least one micro-batch, whole blocks, in proportion to the sources."""
    batches = dataset.held_out_batches(4 * MICRO)
    assert [one.inputs.shape for one in batches] == [(2, BLOCK)] * 4
    assert [one.inputs.shape for one in dataset.held_out_batches(1)] == [(2, BLOCK)]
    np.testing.assert_array_equal(rows(batches)[0][:2], rows(dataset.held_out_batches(1))[0])
    everything = rows(dataset.held_out_batches(10**9))[0]
    blocks = dataset.manifest.blocks(BLOCK, "held_out")
    assert len(everything) == sum(blocks.values()) // 2 * 2
    held_out = {
        stream(dataset, name, "held_out")[block * BLOCK : (block + 1) * BLOCK].tobytes()
        for name, count in blocks.items()
        for block in range(count)
    }
    assert {row.tobytes() for row in everything} <= held_out
    first = stream(dataset, "large", "held_out")[:BLOCK].tobytes()
    assert first in {row.tobytes() for row in rows(batches)[0]}


def test_all_held_out_micro_batches_have_one_shape(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """Blocks that do not fill the last micro-batch are left out."""
    recipe = recipes(corpus, train={"batch_tokens": 20 * BLOCK, "micro_batch_tokens": 5 * BLOCK})
    blocks = sum(build(recipe, workers=1).blocks(BLOCK, "held_out").values())
    assert blocks % 5
    assert [one.inputs.shape for one in open_data(recipe).held_out_batches(10**9)] == [(5, BLOCK)] * (blocks // 5)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 0), (64, 0), (65, 1), (128, 1), (129, 2)])
def test_a_block_needs_one_token_more_than_its_length(dataset: Dataset, tokens: int, blocks: int) -> None:
    """The last target of a source's last block is a token of that source."""
    shard = dataset.manifest.select("large", "train")[0].model_copy(update={"tokens": tokens})
    assert dataset.manifest.model_copy(update={"shards": [shard]}).blocks(BLOCK) == {"large": blocks, "small": 0}


def test_held_out_text_of_less_than_a_micro_batch_is_one_smaller_micro_batch(
    recipes: Recipes, corpus: dict[str, Path]
) -> None:
    """It is used whole, however many tokens are requested."""
    train = {"batch_tokens": 1 << 17, "micro_batch_tokens": 1 << 15}
    recipe = recipes(corpus, train=train)
    blocks = sum(build(recipe, workers=1).blocks(BLOCK, "held_out").values())
    assert [one.inputs.shape for one in open_data(recipe).held_out_batches(1 << 20)] == [(blocks, BLOCK)]


def test_wrong_positions_and_lanes_are_refused(dataset: Dataset) -> None:
    """A position inside a block, and a lane that the recipe does not have, raise ValueError."""
    with pytest.raises(ValueError, match="not at the start of a block"):
        dataset.lane_batches(BLOCK + 1, 0)
    with pytest.raises(ValueError, match="lane 4 of 4"):
        dataset.lane_batches(0, 4)


def same(batches: list[list[MicroBatch]], dataset: Dataset, position: int, lanes: list[int]) -> bool:
    """Whether these are the lanes at `position`."""
    return all(
        np.array_equal(a, b)
        for got, lane in zip(batches, lanes, strict=True)
        for a, b in zip(rows(got), rows(dataset.lane_batches(position, lane)), strict=True)
    )


def test_prefetch_gives_what_the_lanes_give(dataset: Dataset) -> None:
    """Forward, back and far away: the same micro-batches as from the dataset, prepared on another thread."""
    with Prefetcher(dataset, [3, 1]) as prefetch:
        for batch in (0, 1, 2, 1, 50, 51, 10**9, 3):
            assert same(prefetch.get(batch * BATCH), dataset, batch * BATCH, [3, 1])


class Counting(Dataset):
    """A dataset that records the calling threads and fails at one position."""

    def lane_batches(self, position_tokens: int, lane: int) -> list[MicroBatch]:
        """The micro-batches of the dataset."""
        if position_tokens == 5 * BATCH:
            raise DataError("this position fails")
        if position_tokens == 3 * BATCH:
            reached.set()
        threads.add(threading.current_thread())
        return super().lane_batches(position_tokens, lane)


reached = threading.Event()
threads: set[threading.Thread] = set()


def test_prefetch_works_ahead_and_passes_errors_on(dataset: Dataset) -> None:
    """Batches after the current one are prepared in advance; a failing position raises on each request."""
    counting = Counting(dataset.recipe, dataset.tokenizer_path.parent, dataset.manifest)
    prefetch = Prefetcher(counting, [0])
    prefetch.get(BATCH)
    assert reached.wait(timeout=60)
    for _ in range(2):
        with pytest.raises(DataError, match="this position fails"):
            prefetch.get(5 * BATCH)
    assert same(prefetch.get(6 * BATCH), dataset, 6 * BATCH, [0])
    assert threading.current_thread() not in threads
    prefetch.close()
    assert not any(thread.is_alive() for thread in threads)


def test_data_that_is_not_built_says_what_to_run(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """The message gives the command."""
    with pytest.raises(DataError, match="run `headway data build RECIPE` first"):
        open_data(recipes(corpus))


def test_data_of_another_recipe_is_refused(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """The message names what differs."""
    build(recipes(corpus), workers=1)
    with pytest.raises(DataError, match=r"data\.held_out_share: 0\.1 there, 0\.2 in the recipe"):
        open_data(recipes(corpus, held_out_share=0.2))
    with pytest.raises(DataError, match="cannot fill one block"):
        open_data(recipes(corpus, block_tokens=65_536, train={"batch_tokens": 1 << 18, "micro_batch_tokens": 1 << 16}))


def test_a_tokenizer_that_did_not_make_the_shards_is_refused(dataset: Dataset) -> None:
    """Whether the tokenizer or a shard comes from another build, the message names both SHA-256."""
    shard = dataset.tokenizer_path.parent / "shards" / dataset.manifest.shards[0].name
    whole = shard.read_bytes()
    shard.write_bytes(whole[:24] + bytes(32) + whole[56:])
    both = f"tokenizer does not match the shards.*{'0' * 64}.*{dataset.tokenizer_sha256}"
    with pytest.raises(DataError, match=both):
        open_data(dataset.recipe)
    shard.write_bytes(whole)
    dataset.tokenizer_path.write_text(dataset.tokenizer_path.read_text() + "\n")
    with pytest.raises(DataError, match=f"tokenizer does not match the shards.*{dataset.tokenizer_sha256}"):
        open_data(dataset.recipe)


def test_damaged_shards_are_refused(dataset: Dataset) -> None:
    """A shard that is missing, truncated, longer than in the manifest, or not a shard is named."""
    recipe, shard = dataset.recipe, dataset.tokenizer_path.parent / "shards" / dataset.manifest.shards[0].name
    whole = shard.read_bytes()
    longer = whole[:16] + struct.pack("<Q", read_header(shard).tokens + 1) + whole[24:] + b"\0\0"
    for harm, message in [
        (whole[:-2], "damaged: .* bytes long"),
        (b"x" * 100, "not a token shard"),
        (whole[:8] + b"\x09" + whole[9:], "another version"),
        (longer, "the manifest says"),
    ]:
        shard.write_bytes(harm)
        with pytest.raises(DataError, match=f"{shard.name}: .*{message}"):
            open_data(recipe)
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_data(recipe)


def test_an_edited_manifest_is_refused(dataset: Dataset) -> None:
    """Its digest does not match its content."""
    path = dataset.tokenizer_path.parent / "manifest.json"
    document = json.loads(path.read_text())
    assert document["digest"] == dataset.digest
    document["end_of_document"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="changed after it was written"):
        open_data(dataset.recipe)
    path.write_text("[]")
    with pytest.raises(DataError, match="not a sound manifest"):
        open_data(dataset.recipe)


@pytest.mark.parametrize("vocabulary", [300, 70_000])
def test_a_stream_reads_across_shards(tmp_path: Path, vocabulary: int) -> None:
    """Any range of the joined shards, in either token width; reading beyond the end is an error."""
    tokens = np.arange(60) * (vocabulary // 60)
    shards = []
    for index, part in enumerate(np.split(tokens, [1, 25])):
        path = tmp_path / f"{index}.tokens"
        with replacing(path) as file:
            writer = ShardWriter(file, vocabulary, "ab" * 32)
            writer.append(part.tolist())
            summary = writer.finish()
        assert (summary.tokens, summary.size) == (len(part), path.stat().st_size)
        shards.append((path, len(part)))
    joined = TokenStream(shards)
    for start in range(60):
        for stop in range(start, 61):
            out = np.empty(stop - start, dtype=np.int64)
            joined.read(start, out)
            np.testing.assert_array_equal(out, tokens[start:stop])
    with pytest.raises(IndexError):
        joined.read(59, np.empty(2, dtype=np.int64))


def test_a_shard_that_is_not_finished_has_no_name(tmp_path: Path) -> None:
    """An error while writing leaves the old file unchanged, and no other."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(OverflowError), replacing(path) as file:
        ShardWriter(file, 300, "ab" * 32).append([70_000])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_micro_batches_cannot_be_reassigned(dataset: Dataset) -> None:
    """They are frozen."""
    one = dataset.lane_batches(0, 0)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.inputs = one.targets  # type: ignore[misc]
