"""Request bodies that are sent from the buffers that hold them, without copying."""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from botocore.httpchecksum import CrtCrc64NvmeChecksum

from headway.objectstore.protocol import Buffer

CHECKSUM = "CRC64NVME"
"""Checksum that the server verifies and stores with the object. It takes about a thousandth of the upload's time."""
BLOCK_BYTES = 1 << 20
"""Most bytes of one send: few system calls, and each block has the full time-out."""
SMALL_BYTES = 1 << 16
"""Views below this size are joined into blocks of about this size."""


class ObjectBody:
    """A body that consists of several buffers, in order."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self.views = [view for view in views if view.nbytes]
        self.length = sum(view.nbytes for view in self.views)
        self._checksum: str | None = None

    @property
    def checksum(self) -> str:
        """The checksum of all bytes, as S3 encodes it; computed once."""
        if self._checksum is None:
            checksum = CrtCrc64NvmeChecksum()
            for view in self.views:
                checksum.update(view)  # type: ignore[arg-type] # accepts any buffer
            self._checksum = checksum.b64digest()
        return self._checksum

    def request_fields(self) -> dict[str, Any]:
        """The fields of one request that sends this body. Each try needs new ones."""
        content = BodyReader(self) if self.length > BLOCK_BYTES else b"".join(self.views)
        return {"Body": content, f"Checksum{CHECKSUM}": self.checksum}

    def blocks(self) -> Iterator[Buffer]:
        """The bytes in blocks of at most `BLOCK_BYTES`. Copies small views only."""
        small_views: list[memoryview] = []
        for view in self.views:
            small = view.nbytes < SMALL_BYTES
            if small:
                small_views.append(view)
            if small_views and (not small or sum(each.nbytes for each in small_views) >= SMALL_BYTES):
                yield b"".join(small_views)
                small_views = []
            if not small:
                yield from (view[at : at + BLOCK_BYTES] for at in range(0, view.nbytes, BLOCK_BYTES))
        if small_views:
            yield b"".join(small_views)


class BodyReader:
    """File-like view of a body, for boto3."""

    def __init__(self, body: ObjectBody) -> None:
        self._body = body
        self._blocks, self._position = body.blocks(), 0

    def __len__(self) -> int:
        return self._body.length

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, offset: int) -> int:
        """Return to the start: boto3 does when a server redirects it."""
        if offset:
            raise io.UnsupportedOperation(f"a body is read from its beginning, not from byte {offset}")
        self._blocks, self._position = self._body.blocks(), 0
        return 0

    def read(self, _size: int = -1) -> Buffer:
        """The next block, of any size: urllib3 asks for 16 KiB at a time, which would be many small sends."""
        block = next(self._blocks, b"")
        self._position += len(block)
        return block


def split(parts: Iterable[Buffer], length: int) -> Iterator[ObjectBody]:
    """Split the bytes of `parts` into bodies of `length`, lazily. The last body may be shorter."""
    views: list[memoryview] = []
    missing = length
    for part in parts:
        view = memoryview(part).cast("B")
        while view.nbytes >= missing:
            yield ObjectBody([*views, view[:missing]])
            view, views, missing = view[missing:], [], length
        if view.nbytes:
            views.append(view)
            missing -= view.nbytes
    if views:
        yield ObjectBody(views)
