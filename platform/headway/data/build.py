"""Builds data: from the sources of a recipe to a tokenizer and token shards in one folder.

```
<data.path>/plan.json       what is being built, from which files
            tokenizer.json  frozen
            units/          one receipt per finished unit of work
            shards/         <source>-<unit>.<train | held_out>.tokens
            manifest.json   written last: a folder that has one is complete
```
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from headway import strict_json
from headway.data.build_worker import RECEIPTS, BuildJob, Receipt, run_units, valid_receipt
from headway.data.data_manifest import (
    MANIFEST,
    SHARDS,
    TOKENIZER,
    DataManifest,
    Provenance,
    Split,
    check_enough,
    check_meaning,
    meaning,
    read_manifest,
)
from headway.data.loader import check_files
from headway.data.source import Inventory, describe, inventory
from headway.data.tokenizer import end_of_document, load_tokenizer, sample_texts, train_tokenizer
from headway.data.unit import Unit, plan_units
from headway.data.verified_shards import VerifiedShards
from headway.errors import DataError, HeadwayError, UsageError
from headway.localfiles import file_sha256, locked, read_bounded, replacing, sync
from headway.recipe import Recipe, Source

PLAN = "plan.json"
MAX_PLAN_BYTES = 256 << 20
"""Longest plan [bytes]: more than a million source files."""
MAX_DIGEST_BYTES = 64
"""Length of a SHA-256 in hex."""
UNIT = r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9]{6,9}"
SHARD_FILE = re.compile(rf"{UNIT}\.(?:train|held_out)\.tokens")
RECEIPT_FILE = re.compile(rf"{UNIT}\.json|tokenizer\.sha256")
PARTIAL_FILE = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
"""Names of the files that a build makes, besides its documents."""
LOCK = ".lock"
LOCK_SECONDS = 86_400.0
"""Longest wait for another build in the same folder [s]."""

Progress = Callable[[int, int, int], None]
"""Takes the input bytes read, the input bytes in total, and the tokens so far."""


class SourceWork(NamedTuple):
    """The files and units of one source."""

    inventory: Inventory
    units: list[Unit]
    unreadable: Counter[str]
    """Files that could not be opened to plan units, by reason."""


def build(recipe: Recipe, *, workers: int | None = None, progress: Progress | None = None) -> DataManifest:
    """Build the data of `recipe`, resume a build that was killed, or return the finished one.

    The bytes depend neither on `workers` (default: one per core) nor on kills.

    Raises:
        DataError: a source is missing or empty, or the folder holds something else.
        HeadwayError: the folder cannot be written, or a worker died.
    """
    folder = Path(recipe.data_path)
    try:
        if manifest := _finished_build(folder, recipe):
            return manifest
        with locked(folder / LOCK, seconds=LOCK_SECONDS):
            if manifest := _finished_build(folder, recipe):
                return manifest
            return _build(folder, recipe, workers or available_cores(), progress or (lambda *_: None))
    except OSError as error:
        raise HeadwayError(f"{error.filename or folder}: {error.strerror or error}; the build stopped") from error


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finished_build(folder: Path, recipe: Recipe) -> DataManifest | None:
    """The manifest in `folder`, if it fits the recipe and its files are those that were built."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    check_meaning(folder, manifest.meaning, recipe)
    check_enough(manifest, recipe)
    try:
        check_files(folder, manifest)
        VerifiedShards(folder).check(manifest.shards)
    except DataError:
        return None
    return manifest


def _build(folder: Path, recipe: Recipe, workers: int, progress: Progress) -> DataManifest:
    data = recipe.data
    inventories = {name: inventory(name, data.sources[name], exclude=folder.resolve()) for name in sorted(data.sources)}
    _prepare_folder(folder, recipe, inventories)
    work = {
        name: SourceWork(files, *plan_units(name, files, data.sources[name].text_key, data.document_bytes))
        for name, files in inventories.items()
    }
    units = [unit for source in work.values() for unit in source.units]
    done, total, tokens = 0, sum(unit.size for unit in units), 0
    progress(done, total, tokens)
    job = BuildJob(folder, _freeze_tokenizer(folder, recipe, work), data.held_out_share, data.document_bytes)

    def report(more_bytes: int, more_tokens: int) -> None:
        nonlocal done, tokens
        done, tokens = done + more_bytes, tokens + more_tokens
        progress(done, total, tokens)

    receipts: dict[str, Receipt] = {}
    with ThreadPoolExecutor(workers) as pool:
        checks = pool.map(lambda unit: valid_receipt(unit, job), units)
        for unit, receipt in zip(units, checks, strict=True):
            if receipt:
                receipts[unit.name] = receipt
                report(unit.size, sum(shard.tokens for shard in receipt.shards))
    missing = [unit for unit in units if unit.name not in receipts]
    for unit, receipt in run_units(missing, job, workers=workers, report=report):
        receipts[unit.name] = receipt
    return _finish(folder, recipe, work, receipts)


def _finish(folder: Path, recipe: Recipe, work: dict[str, SourceWork], receipts: dict[str, Receipt]) -> DataManifest:
    """Write the manifest of a build whose units are all finished. If the data is too small, clear the folder."""
    tokenizer = load_tokenizer(folder / TOKENIZER)
    by_source = {name: [receipts[unit.name] for unit in source.units] for name, source in work.items()}
    manifest = DataManifest(
        meaning=meaning(recipe),
        tokenizer_sha256=file_sha256(folder / TOKENIZER),
        vocabulary=tokenizer.get_vocab_size(),
        end_of_document=end_of_document(tokenizer),
        sources={name: _provenance(recipe.data.sources[name], work[name], group) for name, group in by_source.items()},
        shards=[shard for group in by_source.values() for receipt in group for shard in receipt.shards],
    )
    before = read_manifest(folder)
    if before and before.digest != manifest.digest:
        raise DataError(
            f"{folder}: is damaged, and building it again from its sources gives other data ({manifest.digest}, not "
            f"{before.digest}); set data.path to another folder, or delete this one"
        )
    try:
        check_enough(manifest, recipe)
    except DataError:
        _clear(folder)
        raise
    for shard in manifest.shards:
        sync(folder / SHARDS / shard.name)
    sync(folder / SHARDS)
    manifest.write(folder)
    VerifiedShards(folder).remember(manifest.shards)
    return manifest


def _provenance(source: Source, work: SourceWork, receipts: list[Receipt]) -> Provenance:
    inputs = "".join(sha256 for receipt in receipts for sha256 in receipt.inputs)
    dropped = sum((Counter(receipt.dropped) for receipt in receipts), work.inventory.dropped + work.unreadable)
    return Provenance(
        path=describe(source),
        files=len(work.inventory.files),
        bytes=work.inventory.size,
        sha256=hashlib.sha256(inputs.encode()).hexdigest(),
        documents=sum(receipt.documents for receipt in receipts),
        tokens=_tokens(receipts, "train"),
        held_out_documents=sum(receipt.held_out_documents for receipt in receipts),
        held_out_tokens=_tokens(receipts, "held_out"),
        dropped=dict(sorted(dropped.items())),
    )


def _tokens(receipts: list[Receipt], split: Split) -> int:
    return sum(shard.tokens for receipt in receipts for shard in receipt.shards if shard.split == split)


def _prepare_folder(folder: Path, recipe: Recipe, inventories: dict[str, Inventory]) -> None:
    """Start this build in `folder`, resume it, or refuse the folder."""
    files = {name: [asdict(file) for file in listing.files] for name, listing in inventories.items()}
    plan = json.loads(json.dumps({"meaning": meaning(recipe), "files": files}))
    before = _read_plan(folder)
    if before is None:
        own = (LOCK, *(path.name for path in _partials(folder)))
        others = sorted(path.name for path in folder.iterdir() if path.name not in own)
        if others and not (folder / MANIFEST).exists():
            raise DataError(
                f"{folder} holds files that are not built data ({', '.join(others[:3])}); "
                "set data.path to a folder of its own"
            )
    else:
        check_meaning(folder, before["meaning"], recipe)
    if before != plan:
        if (folder / MANIFEST).exists():
            raise DataError(
                f"{folder}: is damaged, and its sources changed since it was built; "
                "set data.path to another folder, or delete this one"
            )
        _clear(folder)
    for part in (folder / SHARDS, folder / RECEIPTS):
        part.mkdir(exist_ok=True)
    for partial in (path for part in (folder, folder / SHARDS, folder / RECEIPTS) for path in _partials(part)):
        partial.unlink(missing_ok=True)
    if before != plan:
        with replacing(folder / PLAN) as file:
            file.write(json.dumps(plan, indent=1).encode())


def _clear(folder: Path) -> None:
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
    return plan


def _freeze_tokenizer(folder: Path, recipe: Recipe, work: dict[str, SourceWork]) -> str:
    """Train the tokenizer, unless a whole one exists; returns its SHA-256."""
    data = recipe.data
    path, receipt = folder / TOKENIZER, folder / RECEIPTS / "tokenizer.sha256"
    try:
        if (sha256 := file_sha256(path)) == read_bounded(receipt, MAX_DIGEST_BYTES).decode():
            return sha256
    except (FileNotFoundError, UsageError, UnicodeDecodeError):
        pass
    texts = sample_texts(
        {name: source.units for name, source in work.items()},
        data.tokenizer.sample_bytes,
        held_out_share=data.held_out_share,
        document_bytes=data.document_bytes,
    )
    with replacing(path) as file:
        file.write(train_tokenizer(texts, data.tokenizer.vocabulary).encode())
    sha256 = file_sha256(path)
    with replacing(receipt) as file:
        file.write(sha256.encode())
    return sha256
