"""A manifest is valid only if chunks cover every byte of its shards and every element of its tensors."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.checkpoint import manifest as manifests
from headway.checkpoint.manifest import CheckpointManifest, Chunk, Tensor, checksum
from headway.errors import DamageError


def chunk(offset: int, rows: int, start: int, shard: int = 0) -> dict[str, Any]:
    """Some rows of a float32 tensor with two columns."""
    place = {"offset": [offset, 0], "size": [rows, 2], "start": start, "length": 8 * rows}
    return {"shard": shard, "checksums": ["0"], **place}


def document() -> dict[str, Any]:
    """A sound manifest of one shard: a header of 16 bytes, then four rows of `a` in two chunks, then two of `b`."""
    return {
        "run": "r",
        "attempt": 1,
        "tokens": 64,
        "recipe": "0",
        "data": "0",
        "world_size": 1,
        "environment": {"device": "d", "precision": "fp32", "threads": 1, "torch": "0", "headway": "0"},
        "progress": {"seed": 0, "updates": 1},
        "parent": None,
        "shards": [{"key": "s", "bytes": 64, "header_bytes": 16, "checksum": "0"}],
        "tensors": {
            "a": {"dtype": "float32", "shape": [4, 2], "chunks": [chunk(0, 3, 16), chunk(3, 1, 40)]},
            "b": {"dtype": "float32", "shape": [2, 2], "chunks": [chunk(0, 2, 48)]},
        },
    }


def hole(manifest: dict[str, Any]) -> None:
    """Bytes that no chunk covers."""
    manifest["tensors"]["b"]["chunks"][0]["start"] = 50
    manifest["shards"][0]["bytes"] = 66


def overlap(manifest: dict[str, Any]) -> None:
    """Bytes that two chunks cover."""
    manifest["tensors"]["b"]["chunks"][0]["start"] = 40
    manifest["shards"][0]["bytes"] = 56


def header(manifest: dict[str, Any]) -> None:
    """A chunk that starts inside the header."""
    manifest["shards"][0]["header_bytes"] = 24


def tail(manifest: dict[str, Any]) -> None:
    """Bytes after the last chunk."""
    manifest["shards"][0]["bytes"] = 72


def short(manifest: dict[str, Any]) -> None:
    """A shard that ends before its last chunk."""
    manifest["shards"][0]["bytes"] = 56


def uncovered(manifest: dict[str, Any]) -> None:
    """A tensor with rows that no chunk holds."""
    manifest["tensors"]["a"]["shape"] = [5, 2]


def without_chunks(manifest: dict[str, Any]) -> None:
    """A tensor without any chunk."""
    manifest["tensors"]["c"] = {"dtype": "float32", "shape": [1], "chunks": []}


def twice(manifest: dict[str, Any]) -> None:
    """Rows that are in two chunks, while as many others are in none."""
    manifest["tensors"]["a"]["chunks"][1]["offset"] = [2, 0]


def outside(manifest: dict[str, Any]) -> None:
    """A chunk that ends beyond its tensor."""
    manifest["tensors"]["a"]["chunks"][1]["offset"] = [4, 0]


def flat(manifest: dict[str, Any]) -> None:
    """A chunk with fewer dimensions than its tensor."""
    manifest["tensors"]["a"]["chunks"][0] |= {"offset": [0], "size": [6]}


def thin(manifest: dict[str, Any]) -> None:
    """A chunk with fewer bytes than its elements have."""
    manifest["tensors"]["a"]["chunks"][0]["length"] = 20


def unchecked(manifest: dict[str, Any]) -> None:
    """A chunk with a block that has no checksum."""
    manifest["tensors"]["a"]["chunks"][0]["checksums"] = []


def stray(manifest: dict[str, Any]) -> None:
    """A chunk in a shard that does not exist."""
    manifest["tensors"]["a"]["chunks"][0]["shard"] = 1


def strange(manifest: dict[str, Any]) -> None:
    """An unknown dtype."""
    manifest["tensors"]["a"]["dtype"] = "float31"


def unknown_key(manifest: dict[str, Any]) -> None:
    """An unknown key."""
    manifest["extra"] = 1


def another_format(manifest: dict[str, Any]) -> None:
    """An unknown version of the format."""
    manifest["format"] = 1


def header_of(length: int) -> Callable[[dict[str, Any]], None]:
    """A header of another length."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["shards"][0]["header_bytes"] = length

    return change


def shape(*extents: int) -> Callable[[dict[str, Any]], None]:
    """A tensor of another shape that no chunk holds."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["tensors"]["c"] = {"dtype": "float32", "shape": list(extents), "chunks": []}

    return change


def test_a_sound_manifest_survives_being_written_and_read() -> None:
    """What `encode` writes decodes to an equal manifest."""
    manifest = CheckpointManifest.decode(json.dumps(document()).encode(), "m")
    assert CheckpointManifest.decode(manifest.encode(), "m") == manifest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (hole, "has a hole or an overlap at byte 48"),
        (overlap, "has a hole or an overlap at byte 48"),
        (header, "has a hole or an overlap at byte 24"),
        (tail, "is 72 bytes long, and its tensors end at 64"),
        (short, "is 56 bytes long, and its tensors end at 64"),
        (uncovered, "tensor a is not covered"),
        (without_chunks, "tensor c is not covered"),
        (twice, "tensor a is not covered"),
        (outside, "has a chunk outside of it at (4, 0)"),
        (flat, "has a chunk of 1 dimensions, of 2"),
        (thin, "has a chunk of 20 bytes for (3, 2) elements"),
        (unchecked, "has a chunk with 0 checksums for 24 bytes"),
        (stray, "has a chunk in shard 1, of 1 shards"),
        (strange, "has elements of unknown type float31"),
        (unknown_key, "Extra inputs"),
        (another_format, "should be 2"),
        (header_of(-5), "greater than or equal to 8"),
        (header_of(50_000_000_000), "less than or equal to"),
        (header_of(10**30), "less than or equal to"),
        (shape(0, -1), "greater than or equal to 1"),
        (shape(0), "greater than or equal to 1"),
        (shape(*[1] * 100), "at most 8 items"),
        (shape(10**30), "less than or equal to"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_manifest_that_does_not_add_up_is_damage(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    """Holes, overlaps, tails and uncovered tensors are damage, and the error names the manifest."""
    manifest = document()
    change(manifest)
    with pytest.raises(DamageError) as caught:
        CheckpointManifest.decode(json.dumps(manifest).encode(), "the/manifest.json")
    assert str(caught.value).startswith("the/manifest.json: not a sound manifest: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"{}", b"[" * 200_000, b"[" + b"0," * 2**20 + b"0]"])
def test_bytes_that_are_no_manifest_are_damage(data: bytes) -> None:
    """Bytes that are not the JSON of a manifest raise DamageError, not another error."""
    with pytest.raises(DamageError, match="not a sound manifest"):
        CheckpointManifest.decode(data, "m")


def test_a_checksum_does_not_depend_on_how_bytes_are_cut() -> None:
    """The checksum of parts is that of their concatenation; a changed byte changes it."""
    assert checksum([b"ab", memoryview(b"c")]) == checksum([bytearray(b"abc")])
    assert checksum([b"abc"]) != checksum([b"abd"])


Box = tuple[tuple[int, int], ...]
"""Start and length along each axis."""


@given(st.data())
def test_exactly_the_tilings_of_a_tensor_cover_it(data: st.DataObject) -> None:
    """Any set of boxes: the sum of corners tells the same as counting how often each element is held."""
    extents = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    boxes = data.draw(tilings(extents))
    if data.draw(st.booleans()):
        boxes = data.draw(st.lists(st.sampled_from(boxes), max_size=8))
    held = Counter(element for box in boxes for element in product(*(range(at, at + size) for at, size in box)))
    whole = all(held[element] == 1 for element in product(*map(range, extents)))
    chunks = tuple(
        Chunk(
            shard=0,
            offset=tuple(at for at, _ in box),
            size=tuple(size for _, size in box),
            start=0,
            length=math.prod(size for _, size in box),
            checksums=("0",),
        )
        for box in boxes
    )
    found = list(manifests._problems(Tensor(dtype="uint8", shape=tuple(extents), chunks=chunks)))  # noqa: SLF001
    assert found == ([] if whole else ["is not covered by its chunks"])


def tilings(extents: list[int]) -> st.SearchStrategy[list[Box]]:
    """Ways to cut a box into boxes: along one axis at some place, and each part again."""

    def cut(boxes: list[Box], moves: list[tuple[int, int, int]]) -> list[Box]:
        for which, axis, place in moves:
            box = boxes[which % len(boxes)]
            at, size = box[axis % len(extents)]
            if size > 1:
                middle = 1 + place % (size - 1)
                parts = ((at, middle), (at + middle, size - middle))
                boxes.remove(box)
                boxes += [(*box[: axis % len(extents)], part, *box[axis % len(extents) + 1 :]) for part in parts]
        return boxes

    numbers = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
    return st.lists(numbers, max_size=8).map(lambda moves: cut([tuple((0, extent) for extent in extents)], moves))


def test_many_chunks_that_are_no_rows_are_compared_once_each() -> None:
    """12,000 of them take a moment, where comparing all pairs would take minutes."""
    chunks = tuple(
        Chunk(shard=0, offset=(row, column), size=(1, 1), start=0, length=1, checksums=("0",))
        for row in range(120)
        for column in range(100)
    )
    assert not list(manifests._problems(Tensor(dtype="uint8", shape=(120, 100), chunks=chunks)))  # noqa: SLF001
    twice = (*chunks[:-1], chunks[0])
    [problem] = manifests._problems(Tensor(dtype="uint8", shape=(120, 100), chunks=twice))  # noqa: SLF001
    assert problem == "is not covered by its chunks"
