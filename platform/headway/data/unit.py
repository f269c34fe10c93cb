"""The unit of work of a build: a fixed group of input spans, the same for any number of workers.

The names and sizes of the input files alone decide the units, before the first one starts. Each unit yields its own
shards, so any worker can process any unit, in any order, and again after a kill.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from headway.data.source import Inventory, SourceFile
from headway.errors import DataError

MIN_UNIT_BYTES = 1 << 20
"""Smallest unit [bytes]: below it, opening files costs more than reading them."""
MAX_UNIT_BYTES = 1 << 30
"""Largest unit, where files can be split [bytes]: a kill costs each worker at most this."""
TARGET_UNITS = 512
"""Units per source between those limits: enough for many workers, few enough files."""
LINE_SEARCH_BYTES = 1 << 16
"""How far before a planned cut the search for a line end starts [bytes]."""


@dataclass(frozen=True)
class FileSpan:
    """A part of a file: bytes [start, stop), or row groups [start, stop) of a parquet file."""

    file: SourceFile
    start: int
    stop: int
    size: int
    """Input bytes that progress counts for this span."""

    @property
    def is_whole(self) -> bool:
        """Whether this is the whole file."""
        return self.size == self.file.size


@dataclass(frozen=True)
class Unit:
    """Spans that one worker turns into one shard per split."""

    source: str
    number: int
    spans: tuple[FileSpan, ...]
    text_key: str

    @property
    def name(self) -> str:
        """Prefix of the names of the unit's shards."""
        return f"{self.source}-{self.number:06d}"

    @property
    def size(self) -> int:
        """Size of the input that the unit covers [bytes]."""
        return sum(span.size for span in self.spans)


def plan_units(
    source: str, inventory: Inventory, text_key: str, document_bytes: int
) -> tuple[list[Unit], Counter[str]]:
    """Divide a source into units. Also counts the files that cannot be opened, by reason.

    `document_bytes` is the longest document: a file is split between units only where its text is split anyway.

    Raises:
        DataError: a parquet file has no column `text_key`.
    """
    size = min(MAX_UNIT_BYTES, max(MIN_UNIT_BYTES, inventory.size // TARGET_UNITS))
    dropped: Counter[str] = Counter()
    units: list[Unit] = []
    group: list[FileSpan] = []
    group_bytes = 0
    for file in inventory.files:
        try:
            spans = list(_spans(source, file, text_key, size, document_bytes))
        except OSError as error:
            dropped[f"unreadable: {error.strerror or type(error).__name__}"] += 1
            continue
        for span in spans:
            if group and group_bytes + span.size > size:
                units.append(Unit(source, len(units), tuple(group), text_key))
                group, group_bytes = [], 0
            group.append(span)
            group_bytes += span.size
    if group:
        units.append(Unit(source, len(units), tuple(group), text_key))
    return units, dropped


def _spans(source: str, file: SourceFile, text_key: str, size: int, document_bytes: int) -> Iterator[FileSpan]:
    whole = FileSpan(file, 0, file.size, file.size)
    if file.kind == "text":  # units split a text only where documents are split anyway
        size = max(document_bytes, size // document_bytes * document_bytes)
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
    """Offsets that split a file into parts of at most `size` bytes, or one line each; the last one is `length`."""
    with path.open("rb") as file:
        offset = 0
        while offset + size < length:
            window = max(offset, offset + size - LINE_SEARCH_BYTES)
            file.seek(window)
            end = file.read(offset + size - window).rfind(b"\n") + 1
            offset = window + end if end else _next_line(file)
            yield offset
        if offset < length:
            yield length


def _next_line(file: IO[bytes]) -> int:
    """Offset of the next line after the current position of `file`."""
    while (line := file.readline(LINE_SEARCH_BYTES)) and not line.endswith(b"\n"):
        pass
    return file.tell()


def _row_groups(source: str, whole: FileSpan, text_key: str, size: int) -> Iterator[FileSpan]:
    import pyarrow.parquet as pq  # slow to import, and only parquet needs it
    from pyarrow import ArrowException

    try:
        footer = pq.read_metadata(whole.file.path)
        columns = footer.schema.to_arrow_schema().names
    except (ArrowException, ValueError, OSError) as error:  # of damage, an OSError without a number
        if isinstance(error, OSError) and error.errno:
            raise
        raise OSError(0, f"not parquet ({type(error).__name__})") from error
    if text_key not in columns:
        raise DataError(
            f"data.sources.{source}: {whole.file.path} has no column {text_key!r}; set text_key to one of: "
            f"{', '.join(columns)}"
        )
    groups = footer.num_row_groups
    if not groups:  # the reader counts it
        yield replace(whole, stop=0)
    step = max(1, groups * size // max(1, whole.file.size))
    for start in range(0, groups, step):
        stop = min(groups, start + step)
        yield replace(whole, start=start, stop=stop, size=whole.file.size * (stop - start) // groups)
