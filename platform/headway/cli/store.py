"""`headway store`: list the contents of a store, delete garbage, and copy runs."""

import time
from typing import Annotated, Any

import typer

from headway.cli.options import Json, Quiet, StoreUrl, choose_run, choose_store
from headway.cli.screen import bar, count, result, show, size, span, table
from headway.errors import DamageError, UsageError
from headway.objectstore import Store, open_store
from headway.runs import Run, keys, run_names
from headway.runs.garbage import Garbage, find_garbage

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
    rows = [_row(each) for each in _runs(source, run)]
    if not rows and not as_json:
        show(f"no runs in {source.url} yet; start one with headway train RECIPE", quiet=quiet)
        return
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
    result({"store": source.url, "runs": rows}, table(COLUMNS, cells), as_json=as_json)


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
    runs are named.

    Example: **headway store gc --dry-run**
    """
    source = choose_store(store)
    deleted: list[dict[str, Any]] = []
    groups: dict[tuple[str, str, str], list[int | None]] = {}
    for each in _runs(source, run):
        lengths = dict(source.sizes(keys.checkpoints(each.name)))
        for item in _garbage(each, quiet=quiet):
            length = lengths.get(item.key, 0)
            deleted.append({"key": item.key, "reason": item.reason, "bytes": length})
            groups.setdefault((each.name, count(keys.tokens_of(item.key)), item.reason), []).append(length)
            if not dry_run:
                source.delete(item.key)
    for write in source.unfinished() if run is None else ():
        age = time.time() - write.started
        if age >= older_than:
            reason = f"started {span(age)} ago, never finished"
            deleted.append({"key": write.key, "reason": reason, "bytes": None})
            groups.setdefault(("-", "-", reason), []).append(None)
            if not dry_run:
                source.abort(write)
    freed = sum(length or 0 for group in groups.values() for length in group)
    rows = [
        (name, tokens, count(len(group)), "-" if None in group else size(sum(length or 0 for length in group)), why)
        for (name, tokens, why), group in groups.items()
    ]
    listing = table(("run", ">checkpoint at", ">objects", ">size", "why"), rows)
    document = {"store": source.url, "dry_run": dry_run, "objects": deleted, "bytes": freed}
    result(document, listing if deleted else f"nothing to delete in {source.url}", as_json=as_json)
    if deleted:
        number = "1 object" if len(deleted) == 1 else f"{count(len(deleted))} objects"
        show(f"headway: {'would delete' if dry_run else 'deleted'} {number} with {size(freed)}", quiet=quiet)


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


def _garbage(run: Run, *, quiet: bool) -> list[Garbage]:
    """The garbage of a run; none if its journal is damaged."""
    try:
        return list(find_garbage(run))
    except DamageError as error:
        show(f"headway: skipped: {error}", quiet=quiet)
        return []


def _row(run: Run) -> dict[str, Any]:
    """The size of a run."""
    lengths = dict(run.store.sizes(keys.run(run.name)))
    history = run.history()
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
