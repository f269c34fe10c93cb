"""A body has the same bytes however they are spread over buffers and split."""

import io
import random

import pytest

from headway.objectstore.object_body import BLOCK_BYTES, SMALL_BYTES, BodyReader, ObjectBody, split

LENGTHS = (0, 1, 7, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES)


def buffers(seed: int) -> list[bytes]:
    """Random buffers, of lengths around the block sizes."""
    dice = random.Random(seed)
    return [dice.randbytes(dice.choice(LENGTHS)) for _ in range(dice.randrange(1, 12))]


def read(reader: BodyReader) -> list[bytes]:
    """All blocks of a body."""
    blocks = []
    while block := reader.read(1 << 14):
        blocks.append(bytes(block))
    return blocks


@pytest.mark.parametrize("seed", range(20))
def test_a_body_is_read_in_order_and_again(seed: int) -> None:
    """Every byte comes once, in blocks that are not too large and seldom small; reading can start again."""
    parts = buffers(seed)
    body = ObjectBody([memoryview(part) for part in parts])
    reader = BodyReader(body)
    assert len(reader) == body.length == len(b"".join(parts))
    for _ in range(2):
        blocks = read(reader)
        assert b"".join(blocks) == b"".join(parts)
        assert reader.tell() == body.length
        assert all(len(block) <= BLOCK_BYTES for block in blocks)
        assert sum(len(block) < SMALL_BYTES for block in blocks) <= 2 * sum(len(p) >= SMALL_BYTES for p in parts) + 1
        assert reader.seek(0) == reader.tell() == 0
    with pytest.raises(io.UnsupportedOperation):
        reader.seek(1)


@pytest.mark.parametrize("seed", range(20))
def test_bodies_are_split_to_one_length(seed: int) -> None:
    """All but the last have the given length, none is empty, and no byte is lost."""
    parts, length = buffers(seed), 700_000
    bodies = list(split(parts, length))
    assert b"".join(bytes(view) for body in bodies for view in body.views) == b"".join(parts)
    assert all(body.length == length for body in bodies[:-1])
    assert all(0 < body.length <= length for body in bodies[-1:])


def test_a_checksum_does_not_depend_on_the_buffers() -> None:
    """It equals the published CRC-64/NVME check value."""
    for parts in ([b"123456789"], [b"1234", b"", b"56789"]):
        assert ObjectBody([memoryview(part) for part in parts]).checksum == "rosUhgp5mIg="
