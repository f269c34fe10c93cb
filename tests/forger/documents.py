"""Reads stored documents as plain JSON, and writes them with whatever digests fit."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.forger.values import TEXT

Place = tuple[Any, Any]
"""A list or a dictionary, and an index or a key of it."""


def encode(document: Any, *, compact: bool = False) -> bytes:
    """A document as JSON, with what stands for deep lists and long numbers in full."""
    separators = (",", ":") if compact else (", ", ": ")
    text = json.dumps(document, sort_keys=compact, separators=separators)
    for mark, value in TEXT.items():
        text = text.replace(mark, value)
    return text.encode()


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def places(document: Any) -> Iterator[Place]:
    """Every field and element of a document, at all depths."""
    entries = list(document.items()) if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        yield document, key
        if isinstance(value, dict | list):
            yield from places(value)


def rechain(journal: Path) -> None:
    """Give all entries of a journal the digests of what they say now, and of the entries before them."""
    previous = ""
    for file in sorted(journal.glob("*.json")):
        try:
            entry = json.loads(file.read_bytes())
        except (ValueError, RecursionError):
            entry = None  # it stays as it is
        if isinstance(entry, dict):
            if entry.get("previous") != previous and isinstance(entry.get("previous"), str):
                entry["previous"] = previous
            file.write_bytes(encode(sealed(entry)))
        previous = sha256(file.read_bytes())


def sealed(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with the digest of what it says."""
    fields = {name: value for name, value in entry.items() if name != "digest"}
    return {**fields, "digest": sha256(encode(fields, compact=True))}


def rewrite(file: Path, document: Any) -> None:
    """Write a document, and make all that holds a digest of it fit."""
    in_journal = file.parent.name == "journal" and isinstance(document, dict)
    file.write_bytes(encode(sealed(document) if in_journal else document))
    refit(file)


def refit(file: Path) -> None:
    """Give whatever holds a digest of a changed file its new digest."""
    if file.parent.name == "journal":
        rechain(file.parent)
        return
    owner = next((each for each in file.parents if each.parent.name in {"runs", "models"}), None)
    manifest = file.parent / "manifest.json"
    if owner is None or not manifest.exists():
        return
    if owner.parent.name == "models" and file != manifest:
        document = json.loads(manifest.read_bytes())
        document["files"][file.name] = {"size": file.stat().st_size, "sha256": sha256(file.read_bytes())}
        manifest.write_bytes(encode(document))
    _recommit(owner / "journal", manifest)


def _recommit(journal: Path, manifest: Path) -> None:
    """Commit a manifest anew, or publish it anew."""
    for file in sorted(journal.glob("*.json")):
        entry = json.loads(file.read_bytes())
        if manifest.as_posix().endswith("/" + str(entry.get("manifest"))):
            entry["sha256"] = sha256(manifest.read_bytes())
            file.write_bytes(encode(entry))
    rechain(journal)
