"""Artifacts of Headway among the files of a source: built data and run stores, known by the files at their root.

Their tokens, journals and logs are no text of the source, and some of them change while a build runs.
"""

import os
from collections.abc import Collection
from pathlib import Path

from headway import strict_json
from headway.data.data_manifest import MANIFEST, MAX_MANIFEST_BYTES, MAX_PLAN_BYTES, PLAN
from headway.errors import UsageError
from headway.localfiles import read_bounded
from headway.runs import keys
from headway.runs.hashlog import ENTRY_BYTES
from headway.runs.submissions import SUBMISSION_BYTES

BUILT_DATA = "folder of built data"
STORE = "part of a run store"
"""Reasons to leave a folder out."""
FIRST_ENTRY = keys.hashlog_entry("journal/", 1)
"""What every run and every model has below its prefix."""


def artifact_kind(folder: str, names: Collection[str]) -> str | None:
    """What Headway made of `folder`, which holds `names`; None if it did not make it.

    Built data has a manifest, or a plan while it is built. Runs and models have journals; a folder of them, or of
    submissions, is recognized by any of them, and not the store's root: it may hold other files beside.
    """
    if MANIFEST in names and _holds(
        f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES, "meaning", "tokenizer_sha256", "shards"
    ):
        return BUILT_DATA
    if PLAN in names and _holds(f"{folder}/{PLAN}", MAX_PLAN_BYTES, "meaning", "files"):
        return BUILT_DATA
    if "journal" in names and _is_journaled(folder):
        return STORE
    kind = f"{os.path.basename(folder)}/"  # noqa: PTH119 - the walk has paths as strings
    if kind in {keys.runs(), keys.models()} and any(_is_journaled(f"{folder}/{name}") for name in names):
        return STORE
    if kind == keys.submissions() and any(_is_submission(f"{folder}/{name}") for name in names):
        return STORE
    return None


def _is_journaled(folder: str) -> bool:
    """Whether a folder has the first entry of a journal."""
    return _holds(f"{folder}/{FIRST_ENTRY}", ENTRY_BYTES, "seq", "nonce", "kind", "digest")


def _is_submission(path: str) -> bool:
    """Whether a file is a submission to SLURM."""
    return path.endswith(".json") and _holds(path, SUBMISSION_BYTES, "name", "cluster", "folder", "recipe")


def _holds(path: str, limit: int, *expected: str) -> bool:
    """Whether a file holds a JSON object with these keys."""
    try:
        document = strict_json.parse(read_bounded(Path(path), limit), nan=True)
    except (OSError, ValueError, UsageError):
        return False
    return isinstance(document, dict) and document.keys() >= {*expected}
