"""`headway store`: list the contents of a store, delete garbage, and copy runs."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer
from rich.table import Table

from headway.cli.options import Json, Quiet, StoreUrl, choose_run, choose_store
from headway.cli.screen import bar, count, result, show, size, span, table
from headway.errors import DamageError, HeadwayError, UsageError
from headway.objectstore import Store, open_store
from headway.runs import Run, keys, run_names, strays_among_runs
from headway.runs.garbage import find_garbage
from headway.runs.keys import CheckpointKey

DAY_SECONDS = 86_400.0
COLUMNS = ("run", ">entries", ">checkpoints", ">their size", ">garbage", ">all")
Runs = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Names of runs. Default: all runs.")]

app = typer.Typer(help="List a store, delete garbage, copy runs between stores.", no_args_is_help=True)


@app.command("ls")
def ls(
    run: Runs = None,
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the size of each run: journal entries, checkpoints, garbage (objects that nothing will read), and total.

    Example: **headway store ls --store s3://bucket/runs**
    """
    source = choose_store(store)
    rows, findings = [], strays_among_runs(source) if run is None else []
    for each in _runs(source, run):
        try:
            rows.append(_row(each))
        except HeadwayError as error:
            findings.append(str(error))
    cells = [
        (
            row["run"],
            count(row["entries"]),
            count(row["checkpoints"]),
            size(row["checkpoint_bytes"]),
            "?" if row["garbage_bytes"] is None else size(row["garbage_bytes"]),
            size(row["bytes"]),
        )
        for row in rows
    ]
    if rows or as_json:
        document = {"store": source.url, "runs": rows, "findings": findings}
        result(document, table(COLUMNS, cells), as_json=as_json)
    else:
        show(f"no runs in {source.url} yet; start one with headway train RECIPE", quiet=quiet)
    for finding in findings:
        show(f"headway: {finding}", quiet=quiet)


@app.command("gc")
def gc(
    run: Runs = None,
    store: StoreUrl = None,
    older_than: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Age above which an unfinished write counts as abandoned.")
    ] = DAY_SECONDS,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete garbage: saves that were killed midway, and pruned checkpoints that were not deleted.

    Safe at any time, also while runs are trained: the journal tells which attempts can never commit again, and only
    their uncommitted objects are deleted. Unfinished writes, which no journal lists, are deleted by age, and only if no
    runs are named. What Headway did not write is never deleted. Exits with code 1 if there is something that it does
    not understand, such as a damaged journal, and lists it.

    Example: **headway store gc --dry-run**
    """
    source = choose_store(store)
    items: list[Deletable] = []
    findings: list[str] = []
    for each in _deletable(source, run, older_than):
        if isinstance(each, str):
            findings.append(each)
            continue
        items.append(each)
        if not dry_run:
            each.delete()
    freed = sum(item.length or 0 for item in items)
    document = {
        "store": source.url,
        "dry_run": dry_run,
        "objects": [{"key": item.key, "reason": item.reason, "bytes": item.length} for item in items],
        "bytes": freed,
        "findings": findings,
    }
    result(document, _listing(items) if items else f"nothing to delete in {source.url}", as_json=as_json)
    if items:
        number = "1 object" if len(items) == 1 else f"{count(len(items))} objects"
        show(f"headway: {'would delete' if dry_run else 'deleted'} {number} with {size(freed)}", quiet=quiet)
    for finding in findings:
        show(f"headway: {finding}")
    if findings:
        raise typer.Exit(1)


@app.command("cp")
def cp(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")],
    to: Annotated[str, typer.Argument(metavar="URL", help="Store to copy the run to.")],
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a run to another store. Verifies every byte when it is read, and again at the destination.

    The copy becomes visible once it is complete. To continue an interrupted copy, run the same command again.

    Example: **headway store cp quickstart s3://bucket/runs --store file:///shared/runs**
    """
    from headway.checkpoint import run_copy

    original, target = choose_run(run, store), open_store(to)
    if target.url == original.store.url:
        raise UsageError(f"run {run} is in {target.url} already; choose another store")
    history = original.history()
    with bar(quiet=quiet) as progress:
        task = progress.add_task("copying", total=run_copy.size(history), note="")
        for done in run_copy.copy_run(original, target):
            progress.advance(task, done)
    copied = Run(target, run).history()
    length = sum(commit.bytes for commit in copied.commits)
    document = {
        "run": run,
        "from": original.store.url,
        "to": target.url,
        "checkpoints": [commit.tokens for commit in copied.commits],
        "bytes": length,
    }
    number = "1 checkpoint" if len(copied.commits) == 1 else f"{count(len(copied.commits))} checkpoints"
    text = f"copied run {run} to {target.url}: {number} with {size(length)}"
    result(document, text, as_json=as_json)


def _runs(store: Store, names: list[str] | None) -> list[Run]:
    """The runs with these names; all runs without names."""
    return [Run.open(store, name) for name in names] if names else [Run(store, name) for name in run_names(store)]


@dataclass(frozen=True)
class Deletable:
    """An object or an unfinished write that can be deleted."""

    run: str
    checkpoint: str
    """Position of its checkpoint, for the listing."""
    key: str
    reason: str
    length: int | None
    """Its length [bytes]; None if that is not known."""
    delete: Callable[[], None]


def _deletable(source: Store, names: list[str] | None, older_than: float) -> Iterator[Deletable | str]:
    """What gc deletes, and a finding for each thing that it does not understand."""
    for run in _runs(source, names):
        try:
            yield from _garbage(run)
        except HeadwayError as error:  # the other runs still have garbage
            yield str(error)
    if names is not None:
        return
    yield from dict.fromkeys([*strays_among_runs(source), *(f"{place}: {why}" for place, why in source.strays(""))])
    for write in source.unfinished():
        age = time.time() - write.started
        if age >= older_than and (write.target is None or keys.is_ours(write.target)):
            reason = f"started {span(age)} ago, never finished"
            yield Deletable("-", "-", write.key, reason, None, partial(source.abort, write))


def _garbage(run: Run) -> Iterator[Deletable | str]:
    """The garbage of a run, and a finding for each object among its checkpoints that is not of one."""
    lengths = dict(run.store.sizes(keys.checkpoints(run.name)))
    for item in find_garbage(run):
        delete = partial(run.store.delete, item.key)
        yield Deletable(run.name, count(item.tokens), item.key, item.reason, lengths.get(item.key, 0), delete)
    for key in lengths:
        if not CheckpointKey.parse(key):
            yield f"{key}: is no object of a checkpoint; it stays"


def _listing(items: Iterable[Deletable]) -> Table:
    """A line for each checkpoint and reason."""
    groups: dict[tuple[str, str, str], list[int | None]] = {}
    for item in items:
        groups.setdefault((item.run, item.checkpoint, item.reason), []).append(item.length)
    rows = [
        (name, tokens, count(len(group)), "-" if None in group else size(sum(length or 0 for length in group)), why)
        for (name, tokens, why), group in groups.items()
    ]
    return table(("run", ">checkpoint at", ">objects", ">size", "why"), rows)


def _row(run: Run) -> dict[str, Any]:
    """The size of a run.

    Raises:
        DamageError: there is none of this name.
    """
    lengths = dict(run.store.sizes(keys.run(run.name)))
    history = run.history()
    if keys.recipe(run.name) not in lengths and not run.journal.entries:
        raise DamageError(f"{keys.run(run.name)}: holds no run, neither a recipe nor a journal")
    try:
        garbage_bytes: int | None = sum(lengths.get(item.key, 0) for item in find_garbage(run))
    except DamageError:
        garbage_bytes = None
    return {
        "run": run.name,
        "entries": len(run.journal.entries),
        "checkpoints": len(history.commits),
        "checkpoint_bytes": sum(commit.bytes for commit in history.commits),
        "garbage_bytes": garbage_bytes,
        "objects": len(lengths),
        "bytes": sum(lengths.values()),
    }
