"""The first records of a file of JSON lines: whether it is one, and what keys its records have."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import zstandard

from headway.data.zstd_file import open_zstd

SAMPLE_BYTES = 1 << 20
"""How much of a file is looked at [bytes]."""
SAMPLE_RECORDS = 100
"""How many of its records."""
FEW_RECORDS = 2
"""Records from which on a file is one of JSON lines, whatever their keys are."""


def first_records(path: str, codec: str) -> list[dict[str, Any]]:
    """The objects in the first lines of a file; none if its first line is no object, or the file cannot be read."""
    try:
        head = _head(path, codec)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return []
    lines = head.split(b"\n")
    if len(head) == SAMPLE_BYTES:
        del lines[-1]  # it may go on
    records: list[dict[str, Any]] = []
    for line in lines[:SAMPLE_RECORDS]:
        if line.strip():
            record = _object(line)
            if record is None:
                return records
            records.append(record)
    return records


def holds_json_lines(path: str, codec: str, text_key: str) -> bool:
    """Whether a file that may be one JSON document is one of JSON lines: it has several, or one with the text's key."""
    records = first_records(path, codec)
    return len(records) >= FEW_RECORDS or any(text_key in record for record in records)


def _head(path: str, codec: str) -> bytes:
    if codec == "gzip":
        with gzip.open(path, "rb") as unpacked:
            return unpacked.read(SAMPLE_BYTES)
    with open_zstd(path) if codec == "zstd" else Path(path).open("rb") as file:
        return file.read(SAMPLE_BYTES)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line, parse_int=str)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
