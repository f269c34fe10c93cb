"""Counts what a source holds, by a plain reading of what the documentation says: the build must count the same."""

import os
from contextlib import suppress
from pathlib import Path

DOORS = {frozenset({"manifest.json", "tokenizer.json", "shards"}), frozenset({"recipe.yaml", "journal"})}


def file_count(root: Path, own: list[Path]) -> int:
    """Files, links to files, and what counts as one: a folder of Headway's, and each way to a folder but the first.

    A build writes to its `own` folders, and each way to them counts.
    """
    count, known, unread = 0, {os.path.realpath(root)}, [os.path.realpath(root)]
    while unread:
        folder = unread.pop()
        if _is_artifact(folder):
            count += 1
            continue
        for name in os.listdir(folder):  # noqa: PTH208 - names that are no UTF-8
            path = f"{folder}/{name}"
            if name.startswith("."):
                continue
            real = path
            with suppress(OSError):
                real = os.path.realpath(path)
            if not os.path.isdir(real) or real in known or Path(real) in own:  # noqa: PTH112
                count += 1
            else:
                known.add(real)
                unread.append(real)
    return count


def _is_artifact(folder: str) -> bool:
    names = {*os.listdir(folder)}  # noqa: PTH208
    if any(names >= door for door in DOORS) or (names >= {"journal"} and _is_model(folder)):
        return True
    parts = [f"{folder}/{name}" for name in names]
    return os.path.basename(folder) in {"runs", "models"} and any(map(_is_model, parts))  # noqa: PTH119


def _is_model(folder: str) -> bool:
    """A run or a model."""
    path = Path(folder, "journal", "00000001.json")
    with suppress(OSError):
        return path.is_file() and b'"nonce"' in path.read_bytes()
    return False
