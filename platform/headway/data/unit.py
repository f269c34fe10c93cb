"""The unit of work of a build: a fixed group of input spans, the same whatever the number of workers.

A build is cut into units before the first one starts, from nothing but the names and sizes of the input files.
Each unit yields its own shards, so any worker may do any unit, in any order, and again after a kill.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from headway.data.source import Inventory, SourceFile
from headway.errors import DataError

SMALLEST = 1 << 20
"""Units are not smaller than this [bytes]: below it, opening files costs more than reading them."""
LARGEST = 1 << 30
"""Nor larger than this where files can be cut: it is what a kill can cost each worker."""
UNITS = 512
"""In between, a source has about this many units: enough for many workers, few enough files."""
WINDOW = 1 << 16
"""How far before a wanted cut the end of a line is looked for [bytes]."""


@dataclass(frozen=True)
class FileSpan:
    """A part of a file: bytes [start, stop), or row groups [start, stop) of a parquet file."""

    file: SourceFile
    start: int
    stop: int
    size: int
    """What reading it counts for in progress [bytes]."""


@dataclass(frozen=True)
class Unit:
    """Spans that one worker turns into one shard for each split."""

    source: str
    number: int
    spans: tuple[FileSpan, ...]
    text_key: str

    @property
    def name(self) -> str:
        """Start of its shards' names."""
        return f"{self.source}-{self.number:06d}"

    @property
    def size(self) -> int:
        """Input bytes."""
        return sum(span.size for span in self.spans)


def units(source: str, inventory: Inventory, text_key: str, longest: int) -> tuple[list[Unit], Counter[str]]:
    """Cut a source, whose documents are at most `longest` bytes, into units.

    Also counts the files that cannot even be opened, by reason.

    Raises:
        DataError: a parquet file has no column `text_key`.
    """
    size = min(LARGEST, max(SMALLEST, inventory.size // UNITS))
    dropped: Counter[str] = Counter()
    found: list[Unit] = []
    group: list[FileSpan] = []
    filled = 0
    for file in inventory.files:
        try:
            spans = list(_spans(source, file, text_key, size, longest))
        except OSError as error:
            dropped[f"unreadable: {error.strerror or type(error).__name__}"] += 1
            continue
        for span in spans:
            if group and filled + span.size > size:
                found.append(Unit(source, len(found), tuple(group), text_key))
                group, filled = [], 0
            group.append(span)
            filled += span.size
    if group:
        found.append(Unit(source, len(found), tuple(group), text_key))
    return found, dropped


def _spans(source: str, file: SourceFile, text_key: str, size: int, longest: int) -> Iterator[FileSpan]:
    whole = FileSpan(file, 0, file.size, file.size)
    if file.kind == "text":  # a document is cut between units only where it would be cut in any case
        size = max(longest, size // longest * longest)
    if file.kind == "parquet":
        yield from _row_groups(source, whole, text_key, size)
    elif file.codec != "plain" or file.size <= size:
        yield whole
    else:
        start = 0
        for stop in _line_starts(Path(file.path), file.size, size):
            yield replace(whole, start=start, stop=stop, size=stop - start)
            start = stop


def _line_starts(path: Path, length: int, size: int) -> Iterator[int]:
    """Offsets that cut a file into parts of at most `size` bytes, or one line; the last one is its length."""
    with path.open("rb") as file:
        at = 0
        while at + size < length:
            window = max(at, at + size - WINDOW)
            file.seek(window)
            end = file.read(at + size - window).rfind(b"\n") + 1
            at = window + end if end else _next_line(file)
            yield at
        if at < length:
            yield length


def _next_line(file: IO[bytes]) -> int:
    """Where the next line after the current place of `file` starts."""
    while (line := file.readline(WINDOW)) and not line.endswith(b"\n"):
        pass
    return file.tell()


def _row_groups(source: str, whole: FileSpan, text_key: str, size: int) -> Iterator[FileSpan]:
    import pyarrow.parquet as pq  # slow to import, and only parquet needs it
    from pyarrow import ArrowException

    try:
        footer = pq.read_metadata(whole.file.path)
    except ArrowException as error:
        raise OSError(0, f"not parquet ({type(error).__name__})") from error
    columns = footer.schema.to_arrow_schema().names
    if text_key not in columns:
        raise DataError(
            f"data.sources.{source}: {whole.file.path} has no column {text_key!r}; set text_key to one of: "
            f"{', '.join(columns)}"
        )
    groups = footer.num_row_groups
    each = max(1, groups * size // max(1, whole.file.size))
    for start in range(0, groups, each):
        stop = min(groups, start + each)
        yield replace(whole, start=start, stop=stop, size=whole.file.size * (stop - start) // groups)
