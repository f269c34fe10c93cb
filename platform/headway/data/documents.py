"""Documents of a span of a file, streamed: memory is bounded by one document, one line or one batch of rows."""

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

LONGEST_LINE = 32 << 20
"""A JSONL line longer than this is dropped [bytes]: parsing it would need many times as much memory."""
ROWS = 64
"""Rows of a parquet file held at once."""


class Document(NamedTuple):
    """A document's text, twice: as a string, and as the UTF-8 bytes that are hashed and counted."""

    text: str
    raw: bytes

    def held_out(self, share: float) -> bool:
        """Whether this text is kept out of training: a hash of nothing but the text decides.

        So equal documents are never on both sides, whichever file or source they come from.
        """
        return xxhash.xxh3_64_intdigest(self.raw) < int(share * 2**64)


def read_documents(span: FileSpan, text_key: str, longest: int, dropped: Counter[str]) -> Iterator[Document]:
    """Each document of `span`; those that cannot be used are counted in `dropped` by their reason.

    Documents longer than `longest` bytes are cut after a line's end into documents of at most that length.
    """
    texts = {"text": _texts, "jsonl": _json_lines, "parquet": _rows}[span.file.kind]
    try:
        for raw in texts(span, text_key, longest, dropped):
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


def pieces(read: Callable[[int], bytes], longest: int) -> Iterator[bytes]:
    """Cut what `read` gives into pieces of at most `longest` bytes, after a line's end where there is one."""
    buffer = b""
    while True:
        while len(buffer) <= longest and (more := read(longest + 1 - len(buffer))):
            buffer += more
        if len(buffer) <= longest:
            break
        end = buffer.rfind(b"\n", 0, longest) + 1 or _whole_characters(buffer, longest)
        yield buffer[:end]
        buffer = buffer[end:]
    if buffer:
        yield buffer


def _whole_characters(buffer: bytes, end: int) -> int:
    """The last place at or before `end` that does not cut a UTF-8 character in two."""
    for place in range(end, max(0, end - 4), -1):
        if buffer[place] & 0xC0 != 0x80:
            return place
    return end


def _texts(span: FileSpan, _key: str, longest: int, dropped: Counter[str]) -> Iterator[bytes]:
    with _open(span) as stream:
        found = False
        for raw in pieces(stream.read, longest):
            found = True
            yield raw
        if not found:
            dropped["empty"] += 1


def _json_lines(span: FileSpan, key: str, longest: int, dropped: Counter[str]) -> Iterator[bytes]:
    with _open(span) as stream:
        while line := stream.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                dropped[f"line longer than {LONGEST_LINE >> 20} MiB"] += 1
                while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
                continue
            if line.isspace():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                dropped["not JSON"] += 1
                continue
            if not isinstance(record, dict) or key not in record:
                dropped[f"no field {key!r}"] += 1
                continue
            yield from _field(record[key], key, longest, dropped)


def _rows(span: FileSpan, key: str, longest: int, dropped: Counter[str]) -> Iterator[bytes]:
    import pyarrow.parquet as pq  # slow to import, and only parquet needs it
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(span.file.path, buffer_size=1 << 20, pre_buffer=False) as table:
            groups = list(range(span.start, span.stop))
            for rows in table.iter_batches(ROWS, row_groups=groups, columns=[key], use_threads=False):
                for value in rows.column(0):
                    yield from _field(value.as_py(), key, longest, dropped)
    except ArrowException as error:
        dropped[f"damaged parquet file ({type(error).__name__})"] += 1


def _field(value: object, key: str, longest: int, dropped: Counter[str]) -> Iterator[bytes]:
    """The text of one record."""
    if not isinstance(value, str):
        dropped[f"{key!r} is not text"] += 1
        return
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        dropped["not Unicode (a lone surrogate)"] += 1
        return
    yield from pieces(io.BytesIO(raw).read, longest) if len(raw) > longest else [raw]


def _open(span: FileSpan) -> io.BufferedIOBase:
    """The bytes of a span, decompressed."""
    if span.file.codec == "gzip":
        return gzip.open(span.file.path, "rb")
    file = open(span.file.path, "rb")  # noqa: PTH123, SIM115 - closed by whoever closes what wraps it
    if span.file.codec == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
        return io.BufferedReader(reader, 1 << 20)
    return io.BufferedReader(FileWindow(file, span.start, span.stop), 1 << 20)


class FileWindow(io.RawIOBase):
    """Bytes [start, stop) of a file, which it closes with itself."""

    def __init__(self, file: IO[bytes], start: int, stop: int) -> None:
        super().__init__()
        self.file = file
        self.left = stop - start
        file.seek(start)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as the window goes."""
        found = self.file.read(min(len(buffer), self.left))
        buffer[: len(found)] = found
        self.left -= len(found)
        return len(found)

    def close(self) -> None:
        """Close the file too."""
        self.file.close()
        super().close()
