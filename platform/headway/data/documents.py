"""Documents of a file span, streamed: memory holds one document, one line or one batch of rows at a time."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import IO

import zstandard

from headway.data.holdout import HASHED_BYTES, Document, start_hash
from headway.data.read_counts import ReadCounts
from headway.data.unit import FileSpan
from headway.data.zstd_file import open_zstd

MAX_LINE_BYTES = 32 << 20
"""Longer JSONL lines are dropped [bytes]: parsing one needs many times as much memory."""
PARQUET_BATCH_ROWS = 64
"""Rows of a parquet file in memory at once."""
DAMAGE = (EOFError, zlib.error, zstandard.ZstdError, OSError)
"""What reading a damaged or vanished file raises."""


Piece = tuple[bytes, int]
"""The bytes of a document, or of one piece of a long one, and the hash of the document's start."""


def read_documents(span: FileSpan, text_key: str, max_bytes: int, counts: ReadCounts) -> Iterator[Document]:
    """Yield each document of `span`. Counts all of them, and those that cannot be used by reason.

    Documents longer than `max_bytes` are split at line ends into documents of at most that length.
    """
    read_pieces = {"text": _texts, "jsonl": _json_lines, "parquet": _rows}[span.file.kind]
    before = counts.documents
    try:
        for raw, start in read_pieces(span, text_key, max_bytes, counts):
            counts.documents += 1
            counts.text_bytes += len(raw)
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                counts.drop_text("not UTF-8", len(raw))
                continue
            if text and not text.isspace():
                yield Document(text, raw, start)
            else:
                counts.drop_text("empty", len(raw))
    except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile):
        counts.drop(f"damaged {span.file.codec} file, read up to the damage")
    except OSError as error:
        counts.drop(f"unreadable: {error.strerror or type(error).__name__}")
    if counts.documents == before and span.is_whole:
        counts.drop("empty")


def split_at_lines(read: Callable[[int], bytes], max_bytes: int) -> Iterator[bytes]:
    """Split what `read` returns into pieces of at most `max_bytes` bytes, at line ends where possible."""
    buffer = b""
    while True:
        while len(buffer) <= max_bytes and (more := read(max_bytes + 1 - len(buffer))):
            buffer += more
        if len(buffer) <= max_bytes:
            break
        end = buffer.rfind(b"\n", 0, max_bytes) + 1 or _character_boundary(buffer, max_bytes)
        yield buffer[:end]
        buffer = buffer[end:]
    if buffer:
        yield buffer


def _character_boundary(buffer: bytes, end: int) -> int:
    """The last offset at or before `end` that does not split a UTF-8 character."""
    for offset in range(end, max(0, end - 4), -1):
        if buffer[offset] & 0xC0 != 0x80:
            return offset
    return end


def _texts(span: FileSpan, _key: str, max_bytes: int, _counts: ReadCounts) -> Iterator[Piece]:
    with _open(span) as stream:
        pieces = split_at_lines(stream.read, max_bytes)
        first, damage = _first_pieces(pieces)
        start = start_hash(b"".join(first) if span.is_whole else _file_start(span))
        for raw in first:
            yield raw, start
        if damage:
            raise damage
        for raw in pieces:
            yield raw, start


def _first_pieces(pieces: Iterator[bytes]) -> tuple[list[bytes], Exception | None]:
    """The pieces that are hashed, and the error that ended them."""
    first: list[bytes] = []
    size = 0
    try:
        while size < HASHED_BYTES and (raw := next(pieces, None)) is not None:
            first.append(raw)
            size += len(raw)
    except DAMAGE as error:
        return first, error
    return first, None


def _file_start(span: FileSpan) -> bytes:
    """The first bytes of the document that a span is cut from."""
    with _open(replace(span, start=0, stop=span.file.size)) as stream:
        return stream.read(HASHED_BYTES)


def _json_lines(span: FileSpan, key: str, max_bytes: int, counts: ReadCounts) -> Iterator[Piece]:
    with _open(span) as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                counts.drop(f"line longer than {MAX_LINE_BYTES >> 20} MiB")
                while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                continue
            if line.isspace():
                continue
            try:
                record = _parse(line)
            except (ValueError, RecursionError):
                counts.drop("not JSON")
                continue
            if not isinstance(record, dict) or key not in record:
                counts.drop(f"no field {key!r}")
                continue
            yield from _field(record[key], key, max_bytes, counts)


def _parse(line: bytes) -> object:
    """A line of JSON, in which numbers may have any number of digits: no text is in them."""
    try:
        return json.loads(line)
    except ValueError:
        return json.loads(line, parse_int=str)


def _rows(span: FileSpan, key: str, max_bytes: int, counts: ReadCounts) -> Iterator[Piece]:
    import pyarrow.parquet as pq  # slow to import, and only parquet needs it
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(span.file.path, buffer_size=1 << 20, pre_buffer=False) as table:
            groups = list(range(span.start, span.stop))
            for rows in table.iter_batches(PARQUET_BATCH_ROWS, row_groups=groups, columns=[key], use_threads=False):
                for value in rows.column(0):
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError:
                        counts.drop("not UTF-8")
                    except (ValueError, OverflowError):  # a time beyond Python's
                        counts.drop(f"{key!r} is not text")
                    else:
                        yield from _field(text, key, max_bytes, counts)
    except (ArrowException, OSError) as error:  # of damage, an OSError without a number
        if isinstance(error, OSError) and error.errno:
            raise
        counts.drop(f"damaged parquet file ({type(error).__name__})")


def _field(value: object, key: str, max_bytes: int, counts: ReadCounts) -> Iterable[Piece]:
    """The text of one record, as a string or its bytes, split if it is longer than `max_bytes`."""
    if not isinstance(value, str | bytes):
        counts.drop(f"{key!r} is not text")
        return ()
    try:
        raw = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        counts.drop("not Unicode (a lone surrogate)")
        return ()
    start = start_hash(raw)
    if len(raw) <= max_bytes:
        return ((raw, start),)
    return ((piece, start) for piece in split_at_lines(io.BytesIO(raw).read, max_bytes))


def _open(span: FileSpan) -> io.BufferedIOBase:
    """The bytes of a span, decompressed."""
    if span.file.codec == "gzip":
        return gzip.open(span.file.path, "rb")
    if span.file.codec == "zstd":
        return open_zstd(span.file.path)
    file = open(span.file.path, "rb")  # noqa: PTH123, SIM115 - the wrapper below closes it
    return io.BufferedReader(FileWindow(file, span.start, span.stop), 1 << 20)


class FileWindow(io.RawIOBase):
    """Bytes [start, stop) of a file. Closing the window closes the file."""

    def __init__(self, file: IO[bytes], start: int, stop: int) -> None:
        super().__init__()
        self.file = file
        self.remaining = stop - start
        file.seek(start)

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`, at most to the end of the window."""
        data = self.file.read(min(len(buffer), self.remaining))
        buffer[: len(data)] = data
        self.remaining -= len(data)
        return len(data)

    def close(self) -> None:
        """Close the file too."""
        self.file.close()
        super().close()
