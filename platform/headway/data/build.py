"""Building data: from the sources that a recipe names to a tokenizer and token shards in one folder.

```
<data.path>/plan.json       what is being built, from which files
            tokenizer.json  frozen
            units/          one receipt for each unit of work that is done
            shards/         <source>-<unit>.<train | held_out>.tokens
            manifest.json   written last: a folder that has one is complete
```
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from headway.data import build_worker
from headway.data import data_manifest as manifests
from headway.data import token_shard as shards
from headway.data import tokenizer as tokenizers
from headway.data.build_worker import RECEIPTS, BuildJob, Receipt
from headway.data.data_manifest import SHARDS, TOKENIZER, DataManifest, Provenance
from headway.data.source import Inventory, inventory, provenance
from headway.data.unit import Unit, units
from headway.errors import DataError, HeadwayError
from headway.recipe import Recipe, Source

PLAN = "plan.json"
LOCK = ".lock"

Progress = Callable[[int, int, int], None]
"""Takes input bytes done, input bytes in all, and tokens so far."""


class Work(NamedTuple):
    """What there is to do for one source."""

    listed: Inventory
    units: list[Unit]
    unopened: Counter[str]
    """Files that could not be opened to be cut into units, by reason."""


def build(recipe: Recipe, *, workers: int | None = None, progress: Progress | None = None) -> DataManifest:
    """Build the data that `recipe` names, or go on where a build of it was killed, or return what is built.

    The bytes do not depend on `workers` (default: one for each core), nor on how often it was killed.

    Raises:
        DataError: a source is missing or empty, or the folder holds something else.
        HeadwayError: the folder cannot be written, or a worker died.
    """
    folder = Path(recipe.data_path)
    try:
        if found := _complete(folder, recipe):
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if found := _complete(folder, recipe):
                return found
            return _build(folder, recipe, workers or cores(), progress or (lambda *_: None))
    except OSError as error:
        raise HeadwayError(f"{error.filename or folder}: {error.strerror or error}; the build stopped") from error


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _complete(folder: Path, recipe: Recipe) -> DataManifest | None:
    """The manifest in `folder`, if it is this recipe's and its files are there."""
    found = manifests.read(folder)
    if found is None:
        return None
    manifests.check_meaning(folder, found.meaning, recipe)
    manifests.check_enough(found, recipe)
    try:
        whole = tokenizers.sha256(folder / TOKENIZER) == found.tokenizer_sha256 and all(
            shards.header(folder / SHARDS / shard.name).size == shard.bytes for shard in found.shards
        )
    except (OSError, DataError):
        return None
    return found if whole else None


def _build(folder: Path, recipe: Recipe, workers: int, progress: Progress) -> DataManifest:
    data = recipe.data
    listed = {name: inventory(name, data.sources[name], exclude=folder.resolve()) for name in sorted(data.sources)}
    _plan(folder, recipe, listed)
    work = {
        name: Work(found, *units(name, found, data.sources[name].text_key, data.document_bytes))
        for name, found in listed.items()
    }
    every = [unit for part in work.values() for unit in part.units]
    done, total, tokens = 0, sum(unit.size for unit in every), 0
    progress(done, total, tokens)
    job = BuildJob(folder, _tokenizer(folder, recipe, work), data.held_out_share, data.document_bytes)

    def report(more_bytes: int, more_tokens: int) -> None:
        nonlocal done, tokens
        done, tokens = done + more_bytes, tokens + more_tokens
        progress(done, total, tokens)

    receipts: dict[str, Receipt] = {}
    with ThreadPoolExecutor(workers) as pool:
        for unit, receipt in zip(every, pool.map(lambda unit: build_worker.finished(unit, job), every), strict=True):
            if receipt:
                receipts[unit.name] = receipt
                report(unit.size, sum(shard.tokens for shard in receipt.shards))
    missing = [unit for unit in every if unit.name not in receipts]
    for unit, receipt in build_worker.run(missing, job, workers=workers, report=report):
        receipts[unit.name] = receipt
    return _finish(folder, recipe, work, receipts)


def _finish(folder: Path, recipe: Recipe, work: dict[str, Work], receipts: dict[str, Receipt]) -> DataManifest:
    """Write the manifest of a build whose units are all done; one that is too small leaves nothing behind."""
    tokenizer = tokenizers.load(folder / TOKENIZER)
    by_source = {name: [receipts[unit.name] for unit in part.units] for name, part in work.items()}
    found = DataManifest(
        meaning=manifests.meaning(recipe),
        tokenizer_sha256=tokenizers.sha256(folder / TOKENIZER),
        vocabulary=tokenizer.get_vocab_size(),
        end_of_document=tokenizers.end_of_document(tokenizer),
        sources={name: _provenance(recipe.data.sources[name], work[name], group) for name, group in by_source.items()},
        shards=[shard for group in by_source.values() for one in group for shard in one.shards],
    )
    before = manifests.read(folder)
    if before and before.digest != found.digest:
        raise DataError(
            f"{folder}: is damaged, and building it again from its sources gives other data ({found.digest}, not "
            f"{before.digest}); set data.path to another folder, or delete this one"
        )
    try:
        manifests.check_enough(found, recipe)
    except DataError:
        _clear(folder)
        raise
    for shard in found.shards:
        shards.settle(folder / SHARDS / shard.name)
    shards.settle(folder / SHARDS)
    found.write(folder)
    return found


def _provenance(source: Source, work: Work, receipts: list[Receipt]) -> Provenance:
    inputs = "".join(part for one in receipts for part in one.inputs)
    return Provenance(
        path=provenance(source),
        files=len(work.listed.files),
        bytes=work.listed.size,
        sha256=hashlib.sha256(inputs.encode()).hexdigest(),
        documents=sum(one.documents for one in receipts),
        tokens=_tokens(receipts, "train"),
        held_out_documents=sum(one.held_out_documents for one in receipts),
        held_out_tokens=_tokens(receipts, "held_out"),
        dropped=dict(
            sorted(sum((Counter(one.dropped) for one in receipts), work.listed.dropped + work.unopened).items())
        ),
    )


def _tokens(group: list[Receipt], split: manifests.Split) -> int:
    return sum(shard.tokens for one in group for shard in one.shards if shard.split == split)


def _plan(folder: Path, recipe: Recipe, inventories: dict[str, Inventory]) -> None:
    """Make `folder` ready for this build: begin it, go on with it, or refuse."""
    files = {name: [asdict(file) for file in listed.files] for name, listed in inventories.items()}
    plan = json.loads(json.dumps({"meaning": manifests.meaning(recipe), "files": files}))
    before = _read_plan(folder)
    if before is None:
        ours = (LOCK, *(path.name for path in folder.glob("*.partial")))
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if strangers and not (folder / manifests.NAME).exists():
            raise DataError(
                f"{folder} holds files that are not built data ({', '.join(strangers[:3])}); "
                "set data.path to a folder of its own"
            )
    else:
        manifests.check_meaning(folder, before["meaning"], recipe)
    if before != plan:
        if (folder / manifests.NAME).exists():
            raise DataError(
                f"{folder}: is damaged, and its sources changed since it was built; "
                "set data.path to another folder, or delete this one"
            )
        _clear(folder)
    for part in (folder / SHARDS, folder / RECEIPTS):
        part.mkdir(exist_ok=True)
    for partial in folder.rglob("*.partial"):
        partial.unlink(missing_ok=True)
    if before != plan:
        with shards.replacing(folder / PLAN) as file:
            file.write(json.dumps(plan, indent=1).encode())


def _clear(folder: Path) -> None:
    """Take an unfinished build away, its plan last: until then a killed clearing is cleared again."""
    for part in (folder / SHARDS, folder / RECEIPTS):
        shutil.rmtree(part, ignore_errors=True)
    (folder / TOKENIZER).unlink(missing_ok=True)
    (folder / PLAN).unlink(missing_ok=True)


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / PLAN).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{folder / PLAN}: damaged; delete {folder} and build again") from error
    return found


def _tokenizer(folder: Path, recipe: Recipe, work: dict[str, Work]) -> str:
    """Train the tokenizer, unless it is there already; returns its SHA-256."""
    data = recipe.data
    path, receipt = folder / TOKENIZER, folder / RECEIPTS / "tokenizer.sha256"
    try:
        if (found := tokenizers.sha256(path)) == receipt.read_text():
            return found
    except FileNotFoundError:
        pass
    texts = tokenizers.sample(
        {name: part.units for name, part in work.items()},
        data.tokenizer.sample_bytes,
        held_out_share=data.held_out_share,
        longest=data.document_bytes,
    )
    with shards.replacing(path) as file:
        file.write(tokenizers.train(texts, data.tokenizer.vocabulary).encode())
    found = tokenizers.sha256(path)
    with shards.replacing(receipt) as file:
        file.write(found.encode())
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process builds in `folder`, and keep others waiting; a killed process lets go."""
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
