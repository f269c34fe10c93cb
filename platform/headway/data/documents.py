"""Documents of a file span, streamed: memory holds one document, one line or one batch of rows at a time."""

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import xxhash
import zstandard

from headway.data.unit import FileSpan
from headway.data.zstd_file import open_zstd

MAX_LINE_BYTES = 32 << 20
"""Longer JSONL lines are dropped [bytes]: parsing one needs many times as much memory."""
PARQUET_BATCH_ROWS = 64
"""Rows of a parquet file in memory at once."""


class Document(NamedTuple):
    """A document's text, as a string and as the UTF-8 bytes that are hashed and counted."""

    text: str
    raw: bytes

    def is_held_out(self, share: float) -> bool:
        """Whether this document is kept out of training.

        Only a hash of the text decides, so equal documents are on the same side in every file and source.
        """
        return xxhash.xxh3_64_intdigest(self.raw) < int(share * 2**64)


def read_documents(span: FileSpan, text_key: str, max_bytes: int, dropped: Counter[str]) -> Iterator[Document]:
    """Yield each document of `span`. Unusable documents are counted in `dropped` by reason.

    Documents longer than `max_bytes` are split at line ends into documents of at most that length.
    """
    read_texts = {"text": _texts, "jsonl": _json_lines, "parquet": _rows}[span.file.kind]
    try:
        for raw in read_texts(span, text_key, max_bytes, dropped):
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                dropped["not UTF-8"] += 1
                continue
            if text and not text.isspace():
                yield Document(text, raw)
            else:
                dropped["empty"] += 1
    except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile):
        dropped[f"damaged {span.file.codec} file, read up to the damage"] += 1
    except OSError as error:
        dropped[f"unreadable: {error.strerror or type(error).__name__}"] += 1


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


def _texts(span: FileSpan, _key: str, max_bytes: int, dropped: Counter[str]) -> Iterator[bytes]:
    with _open(span) as stream:
        empty = True
        for raw in split_at_lines(stream.read, max_bytes):
            empty = False
            yield raw
        if empty:
            dropped["empty"] += 1


def _json_lines(span: FileSpan, key: str, max_bytes: int, dropped: Counter[str]) -> Iterator[bytes]:
    with _open(span) as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                dropped[f"line longer than {MAX_LINE_BYTES >> 20} MiB"] += 1
                while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                continue
            if line.isspace():
                continue
            try:
                record = _parse(line)
            except (ValueError, RecursionError):
                dropped["not JSON"] += 1
                continue
            if not isinstance(record, dict) or key not in record:
                dropped[f"no field {key!r}"] += 1
                continue
            yield from _field(record[key], key, max_bytes, dropped)


def _parse(line: bytes) -> object:
    """A line of JSON, in which numbers may have any number of digits: no text is in them."""
    try:
        return json.loads(line)
    except ValueError:
        return json.loads(line, parse_int=str)


def _rows(span: FileSpan, key: str, max_bytes: int, dropped: Counter[str]) -> Iterator[bytes]:
    import pyarrow.parquet as pq  # slow to import, and only parquet needs it
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(span.file.path, buffer_size=1 << 20, pre_buffer=False) as table:
            groups = list(range(span.start, span.stop))
            for rows in table.iter_batches(PARQUET_BATCH_ROWS, row_groups=groups, columns=[key], use_threads=False):
                for value in rows.column(0):
                    try:
                        yield from _field(value.as_py(), key, max_bytes, dropped)
                    except UnicodeDecodeError:
                        dropped["not UTF-8"] += 1
    except ArrowException as error:
        dropped[f"damaged parquet file ({type(error).__name__})"] += 1


def _field(value: object, key: str, max_bytes: int, dropped: Counter[str]) -> Iterator[bytes]:
    """The text of one record, as a string or its bytes, split if it is longer than `max_bytes`."""
    if not isinstance(value, str | bytes):
        dropped[f"{key!r} is not text"] += 1
        return
    try:
        raw = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        dropped["not Unicode (a lone surrogate)"] += 1
        return
    yield from split_at_lines(io.BytesIO(raw).read, max_bytes) if len(raw) > max_bytes else [raw]


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
