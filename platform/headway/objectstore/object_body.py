"""The body of a request, sent from where its bytes lie: nothing is joined, so nothing is copied."""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from botocore.httpchecksum import CrtCrc64NvmeChecksum

from headway.objectstore.protocol import Buffer

CHECKSUM = "CRC64NVME"
"""What the server checks each body against and keeps with the object; it costs a thousandth of the time."""
BLOCK_BYTES = 1 << 20
"""Sent in one go: few calls, and each has the time-out to itself."""
SMALL_BYTES = 1 << 16
"""Views below this are joined to about as much."""


class ObjectBody:
    """Bytes that lie in several places, in their order."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self.views = [view for view in views if view.nbytes]
        self.length = sum(view.nbytes for view in self.views)

    @cached_property
    def checksum(self) -> str:
        """The checksum of all bytes, as S3 writes it."""
        found = CrtCrc64NvmeChecksum()
        for view in self.views:
            found.update(view)  # type: ignore[arg-type] # any buffer will do
        return found.b64digest()

    def fields(self) -> dict[str, Any]:
        """What a request says of it; one set for each time that it is sent."""
        content = Reading(self) if self.length > BLOCK_BYTES else b"".join(self.views)
        return {"Body": content, f"Checksum{CHECKSUM}": self.checksum}

    def blocks(self) -> Iterator[Buffer]:
        """Its bytes in blocks to be sent one after the other; only of small views it makes copies."""
        few: list[memoryview] = []
        for view in self.views:
            small = view.nbytes < SMALL_BYTES
            if small:
                few.append(view)
            if few and (not small or sum(each.nbytes for each in few) >= SMALL_BYTES):
                yield b"".join(few)
                few = []
            if not small:
                yield from (view[at : at + BLOCK_BYTES] for at in range(0, view.nbytes, BLOCK_BYTES))
        if few:
            yield b"".join(few)


class Reading:
    """A body as boto3 takes one that is not `bytes`: a file."""

    def __init__(self, body: ObjectBody) -> None:
        self._body = body
        self._blocks, self._at = body.blocks(), 0

    def __len__(self) -> int:
        return self._body.length

    def tell(self) -> int:
        """How much was read."""
        return self._at

    def seek(self, offset: int) -> int:
        """Begin again: boto3 does when a server sends it elsewhere."""
        if offset:
            raise io.UnsupportedOperation(f"a body is read from its beginning, not from byte {offset}")
        self._blocks, self._at = self._body.blocks(), 0
        return 0

    def read(self, _size: int = -1) -> Buffer:
        """The next block, whatever size is asked for: urllib3 asks for 16 KiB, which would be many small sends."""
        block = next(self._blocks, b"")
        self._at += len(block)
        return block


def cut(parts: Iterable[Buffer], length: int) -> Iterator[ObjectBody]:
    """The bytes of `parts` in bodies of `length`, made as they are asked for; the last may be shorter."""
    taken: list[memoryview] = []
    room = length
    for part in parts:
        view = memoryview(part).cast("B")
        while view.nbytes >= room:
            yield ObjectBody([*taken, view[:room]])
            view, taken, room = view[room:], [], length
        if view.nbytes:
            taken.append(view)
            room -= view.nbytes
    if taken:
        yield ObjectBody(taken)
