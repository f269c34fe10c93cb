"""The folder of a build: started, resumed or cleared, and never anybody else's."""

import json
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from headway import strict_json
from headway.data.build_worker import RECEIPTS
from headway.data.data_manifest import (
    MAX_PLAN_BYTES,
    PLAN,
    SHARDS,
    TOKENIZER,
    check_meaning,
    meaning,
    read_manifest,
)
from headway.data.holdout import FIRST_RULE, NEWEST_RULE, SplitRule
from headway.data.source import Inventory
from headway.errors import DataError, UsageError
from headway.localfiles import read_bounded, replacing
from headway.recipe import Recipe

UNIT = r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9]{6,9}"
SHARD_FILE = re.compile(rf"{UNIT}\.(?:train|held_out)\.tokens")
RECEIPT_FILE = re.compile(rf"{UNIT}\.json|tokenizer\.sha256")
PARTIAL_FILE = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
"""Names of the files that a build makes, besides its documents."""
LOCK = ".lock"


def prepare_folder(folder: Path, recipe: Recipe, inventories: dict[str, Inventory]) -> SplitRule:
    """Start this build in `folder`, resume it, or refuse the folder. Returns the rule of its split.

    A build that has begun keeps its rule, so that what is missing is built as the rest was.

    Raises:
        DataError: the folder holds something else, or is damaged, and its sources changed.
    """
    files = {name: [asdict(file) for file in listing.files] for name, listing in inventories.items()}
    before, manifest = _read_plan(folder), read_manifest(folder)
    rule = manifest.split_rule if manifest else before["split_rule"] if before else NEWEST_RULE
    plan = json.loads(json.dumps({"meaning": meaning(recipe), "split_rule": rule, "files": files}))
    if before is None:
        own = (LOCK, *(path.name for path in _partials(folder)))
        others = sorted(path.name for path in folder.iterdir() if path.name not in own)
        if others and not manifest:
            raise DataError(
                f"{folder} holds files that are not built data ({', '.join(others[:3])}); "
                "set data.path to a folder of its own"
            )
    else:
        check_meaning(folder, before["meaning"], recipe)
    if before != plan:
        if manifest:
            raise DataError(
                f"{folder}: is damaged, and its sources changed since it was built; "
                "set data.path to another folder, or delete this one"
            )
        clear(folder)
        plan["split_rule"] = NEWEST_RULE
    for part in (folder / SHARDS, folder / RECEIPTS):
        part.mkdir(exist_ok=True)
    for partial in (path for part in (folder, folder / SHARDS, folder / RECEIPTS) for path in _partials(part)):
        partial.unlink(missing_ok=True)
    if before != plan:
        with replacing(folder / PLAN) as file:
            file.write(json.dumps(plan, indent=1).encode())
    return cast("SplitRule", plan["split_rule"])


def clear(folder: Path) -> None:
    """Delete an unfinished build, its plan last: if this is killed, the next build clears the folder again.

    Deletes only files that a build makes. What somebody put beside them stays.
    """
    for part, ours in ((folder / SHARDS, SHARD_FILE), (folder / RECEIPTS, RECEIPT_FILE)):
        for path in part.iterdir() if part.is_dir() else ():
            if ours.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
                path.unlink()
        with suppress(OSError):  # something else is left in it
            part.rmdir()
    (folder / TOKENIZER).unlink(missing_ok=True)
    (folder / PLAN).unlink(missing_ok=True)


def _partials(folder: Path) -> list[Path]:
    """The unfinished files that killed builds left in a folder."""
    names = folder.iterdir() if folder.is_dir() else ()
    return [path for path in names if PARTIAL_FILE.fullmatch(path.name) and path.is_file()]


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        plan = strict_json.parse(read_bounded(folder / PLAN, MAX_PLAN_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, UsageError) as error:
        raise DataError(f"{folder / PLAN}: damaged ({error}); delete {folder} and build again") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("meaning"), dict):
        raise DataError(f"{folder / PLAN}: is not a plan of a build; delete {folder} and build again")
    if plan.setdefault("split_rule", FIRST_RULE) not in get_args(SplitRule):
        raise DataError(f"{folder / PLAN}: its split_rule is none of this Headway; build with the one that began it")
    return plan
