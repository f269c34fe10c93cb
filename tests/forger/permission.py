"""What each command may change in the stores that it is given: a plain reading of what the documentation says."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.forger.command import Outcome
from tests.forger.folder_copy import Tree, changes
from tests.forger.forger import small

GARBAGE = re.compile(
    r"runs/(?P<run>[^/]+)/(?P<checkpoint>checkpoints/[0-9]{15}-[0-9]{8})"
    r"/(?:manifest\.json|[0-9]{5}-of-[0-9]{5}\.safetensors)|\.incoming/[0-9a-f]{32}"
)


def breaches(outcome: Outcome, root: Path, before: Tree, after: Tree) -> Iterator[str]:
    """What a command did in its store, and may not."""
    found = changes(before, after)
    for path, what in found.items():
        emptied = stat.S_ISDIR(before.get(path, (0, 0))[1]) and any(each.startswith(path + "/") for each in found)
        key = str(Path(path).relative_to(root))
        if not (emptied and what == "deleted") and not _may(outcome.words, root, key, what):
            yield f"{key}: {what}"


def copy_breaches(outcome: Outcome, root: Path, before: Tree, after: Tree) -> Iterator[str]:
    """What a command did in the store that runs are copied to, outside of the run that it copied."""
    run = outcome.words[2] if outcome.words[:2] == ("store", "cp") else "/"
    for path, what in changes(before, after).items():
        key = str(Path(path).relative_to(root))
        if not re.match(rf"(runs/{run}(/|$)|\.incoming$)", key):
            yield f"{key}: {what} in another store"


def _may(words: tuple[str, ...], root: Path, key: str, what: str) -> bool:
    match words:
        case ("store", "gc", *options) if what == "deleted" and "--dry-run" not in options:
            if not (found := GARBAGE.fullmatch(key)):
                return False
            return not (found["run"] and _committed(root / "runs" / found["run"], found["checkpoint"]))
        case ("alias", *_):
            return what == "made" and bool(re.fullmatch(r"models/keeper/journal(/[0-9]{8}\.json)?|\.incoming", key))
    return False


def _committed(run: Path, checkpoint: str) -> bool:
    """Whether an entry commits a checkpoint, and none prunes it; nobody knows if one of them cannot be read."""
    found = [file for file in (run / "journal").glob("*.json") if re.fullmatch("[0-9]{8}", file.stem)]
    files = [file for file in found if file.is_file() and not file.is_symlink()]
    entries = [entry for file in files if isinstance(entry := _parsed(file), dict)]
    name = f"runs/{run.name}/{checkpoint}/manifest.json"
    named = any(entry.get("manifest") == name for entry in entries)
    unknown = len(entries) < len([file for file in files if int(file.stem) <= len(files)])
    return unknown or (named and not any(name in (entry.get("manifests") or ()) for entry in entries))


def _parsed(file: Path) -> object:
    """A document; None if it cannot be read, so it names no checkpoint."""
    try:
        return json.loads(file.read_bytes()) if small(file) else None
    except (ValueError, RecursionError):
        return None
