"""Whatever damage does to a file, its reader ends, and what it does not read is counted.

`HEADWAY_DAMAGES=2000` says how many trees are built; of files there are twenty times as many.
"""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, note, settings
from hypothesis import strategies as st

from headway.data.documents import read_documents
from headway.data.read_counts import ReadCounts
from headway.data.source import inventory
from headway.data.unit import plan_units
from headway.errors import DataError
from headway.recipe import Source
from tests.sources.test_damaged_sources import CHECKS, DAMAGES

TEXTS = [f"document {number} " + "so é it goes\n" * (number % 7) for number in range(40)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def parquet(column: pa.Array, **options: object) -> bytes:
    """A file of several row groups and columns."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": column, "n": range(len(column))}), sink, row_group_size=15, **options)
    return sink.getvalue()


FILES = {
    **{f"{codec}.parquet": parquet(pa.array(TEXTS), compression=codec) for codec in ("none", "snappy", "gzip", "zstd")},
    "plain.parquet": parquet(pa.array(TEXTS), use_dictionary=False, write_page_checksum=True),
    "bytes.parquet": parquet(pa.array(TEXTS).cast(pa.binary()), data_page_version="2.0"),
    "times.parquet": parquet(pa.array(range(40), pa.timestamp("us"))),
    "lines.jsonl": LINES,
    "lines.json.gz": gzip.compress(LINES, mtime=0),
    "lines.jsonl.zst": zstandard.compress(LINES),
    "text.txt.gz": gzip.compress(LINES, mtime=0),
    "text.txt.zst": zstandard.ZstdCompressor(write_checksum=True).compress(LINES),
}
BYTES = st.sampled_from([0, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
PLACES = st.integers(-800, 4000)
"""Offsets; those before 0 count from the end, where parquet says what it holds."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One for all examples."""
    return tmp_path


@settings(CHECKS, max_examples=20 * DAMAGES)
@given(st.sampled_from([*FILES]), st.lists(st.tuples(PLACES, BYTES), max_size=4), st.none() | PLACES)
def test_a_damaged_file_is_read_or_counted(
    folder: Path, name: str, changes: list[tuple[int, int]], end: int | None
) -> None:
    """As far as it can be read; one without the text's column is refused with a line."""
    note(f"{name}: {changes}, cut at {end}")
    raw = bytearray(FILES[name])
    for place, byte in changes:
        raw[place % len(raw)] = byte
    path = folder / name
    path.write_bytes(raw[:end])
    try:
        listing = inventory("s", Source(path=str(path)), exclude=folder / "built")
        units, unreadable = plan_units("s", listing, "text", 200)
    except DataError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert not refusal or "set text_key to one of" in refusal
    if refusal:
        return
    counts = ReadCounts()
    spans = [span for unit in units for span in unit.spans]
    documents = [each for span in spans for each in read_documents(span, "text", 200, counts)]
    assert counts.documents == len(documents) + counts.dropped.total()
    assert counts.text_bytes == sum(len(each.raw) for each in documents) + counts.dropped_bytes
    assert documents or counts.dropped or unreadable or listing.dropped
    assert all(reason.isprintable() for reason in counts.dropped + unreadable + listing.dropped)
    if not changes and end is None and name != "times.parquet":
        assert "".join(each.text for each in documents) == (LINES.decode() if "text" in name else "".join(TEXTS))
