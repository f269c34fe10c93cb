"""A manifest is valid only if chunks cover every byte of its shards and every element of its tensors."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from headway.checkpoint.manifest import CheckpointManifest, checksum
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


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_bytes_that_are_no_manifest_are_damage(data: bytes) -> None:
    """Bytes that are not the JSON of a manifest raise DamageError, not another error."""
    with pytest.raises(DamageError, match="not a sound manifest"):
        CheckpointManifest.decode(data, "m")


def test_a_checksum_does_not_depend_on_how_bytes_are_cut() -> None:
    """The checksum of parts is that of their concatenation; a changed byte changes it."""
    assert checksum([b"ab", memoryview(b"c")]) == checksum([bytearray(b"abc")])
    assert checksum([b"abc"]) != checksum([b"abd"])
