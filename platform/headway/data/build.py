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
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from headway.data.build_folder import LOCK, clear, prepare_folder
from headway.data.build_worker import RECEIPTS, BuildJob, Receipt, run_units, valid_receipt
from headway.data.data_manifest import (
    SHARDS,
    TOKENIZER,
    DataManifest,
    InputCounts,
    Provenance,
    Split,
    check_enough,
    check_meaning,
    meaning,
    read_manifest,
)
from headway.data.holdout import Holdout, SplitRule
from headway.data.loader import check_files
from headway.data.source import Inventory, describe, inventory
from headway.data.tokenizer import end_of_document, load_tokenizer, sample_texts, train_tokenizer
from headway.data.unit import Unit, plan_units
from headway.data.verified_shards import VerifiedShards
from headway.errors import DataError, HeadwayError, UsageError
from headway.localfiles import file_sha256, locked, read_bounded, replacing, sync
from headway.recipe import Recipe, Source

MAX_DIGEST_BYTES = 64
"""Length of a SHA-256 in hex."""
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
    holdout = Holdout(data.held_out_share, prepare_folder(folder, recipe, inventories))
    work = {
        name: SourceWork(files, *plan_units(name, files, data.sources[name].text_key, data.document_bytes))
        for name, files in inventories.items()
    }
    units = [unit for source in work.values() for unit in source.units]
    done, total, tokens = 0, sum(unit.size for unit in units), 0
    progress(done, total, tokens)
    job = BuildJob(folder, _freeze_tokenizer(folder, recipe, work, holdout), holdout, data.document_bytes)

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
    return _finish(folder, recipe, work, receipts, holdout.rule)


def _finish(
    folder: Path, recipe: Recipe, work: dict[str, SourceWork], receipts: dict[str, Receipt], rule: SplitRule
) -> DataManifest:
    """Write the manifest of a build whose units are all finished. If the data is too small, clear the folder."""
    tokenizer = load_tokenizer(folder / TOKENIZER)
    by_source = {name: [receipts[unit.name] for unit in source.units] for name, source in work.items()}
    manifest = DataManifest(
        meaning=meaning(recipe),
        split_rule=rule,
        tokenizer_sha256=file_sha256(folder / TOKENIZER),
        vocabulary=tokenizer.get_vocab_size(),
        end_of_document=end_of_document(tokenizer),
        sources={name: _provenance(recipe.data.sources[name], work[name], group) for name, group in by_source.items()},
        shards=[shard for group in by_source.values() for receipt in group for shard in receipt.shards],
    )
    if discrepancies := manifest.discrepancies():
        raise HeadwayError(
            f"{folder}: the sums of the build do not close ({'; '.join(discrepancies)}); this is a fault of Headway, "
            "which may have lost documents: please report it"
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
        clear(folder)
        raise
    for shard in manifest.shards:
        sync(folder / SHARDS / shard.name)
    sync(folder / SHARDS)
    manifest.write(folder)
    VerifiedShards(folder).remember(manifest.shards)
    return manifest


def _provenance(source: Source, work: SourceWork, receipts: list[Receipt]) -> Provenance:
    inputs = "".join(sha256 for receipt in receipts for sha256 in receipt.inputs)
    files = {span.file.name: span.file.size for unit in work.units for span in unit.spans}
    files_left_out = work.inventory.dropped + work.unreadable
    documents_left_out = sum((Counter(receipt.dropped) for receipt in receipts), Counter[str]())
    return Provenance(
        path=describe(source),
        files=len(files),
        bytes=sum(files.values()),
        sha256=hashlib.sha256(inputs.encode()).hexdigest(),
        documents=sum(receipt.documents for receipt in receipts),
        tokens=_tokens(receipts, "train"),
        held_out_documents=sum(receipt.held_out_documents for receipt in receipts),
        held_out_tokens=_tokens(receipts, "held_out"),
        dropped=dict(sorted((files_left_out + documents_left_out).items())),
        input=InputCounts(
            files=work.inventory.total,
            files_left_out=dict(sorted(files_left_out.items())),
            documents=sum(receipt.input_documents for receipt in receipts),
            documents_left_out=dict(sorted(documents_left_out.items())),
            text_bytes=sum(receipt.text_bytes for receipt in receipts),
            text_bytes_kept=sum(receipt.text_bytes_kept for receipt in receipts),
            text_bytes_left_out=sum(receipt.text_bytes_left_out for receipt in receipts),
        ),
    )


def _tokens(receipts: list[Receipt], split: Split) -> int:
    return sum(shard.tokens for receipt in receipts for shard in receipt.shards if shard.split == split)


def _freeze_tokenizer(folder: Path, recipe: Recipe, work: dict[str, SourceWork], holdout: Holdout) -> str:
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
        holdout=holdout,
        document_bytes=data.document_bytes,
    )
    with replacing(path) as file:
        file.write(train_tokenizer(texts, data.tokenizer.vocabulary).encode())
    sha256 = file_sha256(path)
    with replacing(receipt) as file:
        file.write(sha256.encode())
    return sha256
