"""Zstandard files as streams of bytes that say when they are cut off: the library ends such a stream silently."""

import io
from pathlib import Path
from typing import IO

import zstandard

MAX_WINDOW_BYTES = 1 << 30
"""Largest window, which is held in memory [bytes]: what `zstd --long=30` writes."""
HEADER_BYTES = 18
"""Longest header of a frame [bytes] (RFC 8878, section 3.1.1.1)."""
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""Magic numbers of frames that hold no data (RFC 8878, section 3.1.2)."""
RLE = 1
"""Type of a block that holds one byte, however often it is repeated."""


def open_zstd(path: str) -> io.BufferedReader:
    """The bytes of all frames of a file. Reading past the end of one that is cut off raises EOFError."""
    return io.BufferedReader(_ZstdFile(path), 1 << 20)


class _ZstdFile(io.RawIOBase):
    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - `close` closes it
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._reader = decompressor.stream_reader(self._file, read_across_frames=True, closefd=False)

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`.

        Raises:
            EOFError: the file ends within a frame.
        """
        count = self._reader.readinto(buffer)
        if not count and len(buffer) and not _is_whole(self._file):
            raise EOFError("the file ends within a frame")
        return count

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def _is_whole(file: IO[bytes]) -> bool:
    """Whether a file's last frame is complete, by the lengths of its blocks (RFC 8878, section 3.1.1)."""
    end, at = file.seek(0, io.SEEK_END), 0
    while at < end:
        file.seek(at)
        header = file.read(HEADER_BYTES)
        if int.from_bytes(header[:4], "little") in SKIPPABLE:
            at += 8 + int.from_bytes(header[4:8], "little")
            continue
        try:
            at += zstandard.frame_header_size(header)
            checksum = 4 * zstandard.get_frame_parameters(header).has_checksum
        except zstandard.ZstdError:
            return False
        last = False
        while not last:
            file.seek(at)
            if len(block := file.read(3)) < 3:
                return False
            fields = int.from_bytes(block, "little")
            last, kind, length = bool(fields & 1), fields >> 1 & 3, fields >> 3
            at += 3 + (1 if kind == RLE else length)
        at += checksum
    return at == end
