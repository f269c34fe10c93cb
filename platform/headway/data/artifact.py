"""Artifacts of Headway among the files of a source: built data and run stores, known by the files at their root.

Their tokens, journals and logs are no text of the source, and some of them change while a build runs.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from headway import strict_json
from headway.data.data_manifest import MANIFEST, MAX_MANIFEST_BYTES, MAX_PLAN_BYTES, PLAN
from headway.errors import UsageError
from headway.localfiles import read_bounded
from headway.runs import keys
from headway.runs.hashlog import ENTRY_BYTES
from headway.runs.submissions import SUBMISSION_BYTES

BUILT_DATA = "folder of built data"
STORE = "run store"
JOURNALED = "run or model of a run store"
"""Reasons to leave a folder out."""
FIRST_ENTRY = keys.hashlog_entry("journal/", 1)
"""What every run and every model has below its prefix."""


def artifact_kind(folder: str, names: Collection[str]) -> str | None:
    """What Headway made of `folder`, which holds `names`; None if it did not make it.

    Built data has a manifest, or a plan while it is built. A store holds runs, models or submissions.
    """
    if MANIFEST in names and _holds(folder, MANIFEST, MAX_MANIFEST_BYTES, "meaning", "tokenizer_sha256", "shards"):
        return BUILT_DATA
    if PLAN in names and _holds(folder, PLAN, MAX_PLAN_BYTES, "meaning", "files"):
        return BUILT_DATA
    if "journal" in names and _is_journaled(folder):
        return JOURNALED
    parts = [(kind, f"{folder}/{kind}") for kind in (keys.runs(), keys.models()) if kind.rstrip("/") in names]
    if any(_is_journaled(entry.path) for _, part in parts for entry in _entries(part) if entry.is_dir()):
        return STORE
    kind = keys.submissions()
    if kind.rstrip("/") in names and any(
        _holds(entry.path, "", SUBMISSION_BYTES, "name", "cluster", "folder", "recipe")
        for entry in _entries(f"{folder}/{kind}")
        if keys.is_ours(kind + entry.name)
    ):
        return STORE
    return None


def _is_journaled(folder: str) -> bool:
    """Whether a folder has the first entry of a journal."""
    return _holds(folder, FIRST_ENTRY, ENTRY_BYTES, "seq", "nonce", "kind", "digest")


def _holds(folder: str, name: str, limit: int, *expected: str) -> bool:
    """Whether a file holds a JSON object with these keys."""
    document: Any = None
    try:
        document = strict_json.parse(read_bounded(Path(folder, name), limit), nan=True)
    except (OSError, ValueError, UsageError):
        return False
    return isinstance(document, dict) and document.keys() >= {*expected}


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return
