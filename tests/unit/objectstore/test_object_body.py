"""A body is its bytes, however they lie and however they are cut."""

import io
import random

import pytest

from headway.objectstore.object_body import BLOCK_BYTES, SMALL_BYTES, ObjectBody, Reading, cut

LENGTHS = (0, 1, 7, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES)


def lying(seed: int) -> list[bytes]:
    """Bytes in a few places, of lengths at which something changes."""
    dice = random.Random(seed)
    return [dice.randbytes(dice.choice(LENGTHS)) for _ in range(dice.randrange(1, 12))]


def read(reading: Reading) -> list[bytes]:
    """All its blocks."""
    blocks = []
    while block := reading.read(1 << 14):
        blocks.append(bytes(block))
    return blocks


@pytest.mark.parametrize("seed", range(20))
def test_a_body_is_read_in_order_and_again(seed: int) -> None:
    """Every byte once, in blocks that are not too large and seldom small; from the beginning, as often as one likes."""
    parts = lying(seed)
    body = ObjectBody([memoryview(part) for part in parts])
    reading = Reading(body)
    assert len(reading) == body.length == len(b"".join(parts))
    for _ in range(2):
        blocks = read(reading)
        assert b"".join(blocks) == b"".join(parts)
        assert reading.tell() == body.length
        assert all(len(block) <= BLOCK_BYTES for block in blocks)
        assert sum(len(block) < SMALL_BYTES for block in blocks) <= 2 * sum(len(p) >= SMALL_BYTES for p in parts) + 1
        assert reading.seek(0) == reading.tell() == 0
    with pytest.raises(io.UnsupportedOperation):
        reading.seek(1)


@pytest.mark.parametrize("seed", range(20))
def test_bodies_are_cut_to_one_length(seed: int) -> None:
    """All but the last are as long as was asked for, none is empty, and together they are what was cut."""
    parts, length = lying(seed), 700_000
    bodies = list(cut(parts, length))
    assert b"".join(bytes(view) for body in bodies for view in body.views) == b"".join(parts)
    assert all(body.length == length for body in bodies[:-1])
    assert all(0 < body.length <= length for body in bodies[-1:])


def test_a_checksum_does_not_depend_on_how_the_bytes_lie() -> None:
    """It is the one that CRC-64/NVME has for its check string."""
    for parts in ([b"123456789"], [b"1234", b"", b"56789"]):
        assert ObjectBody([memoryview(part) for part in parts]).checksum == "rosUhgp5mIg="
