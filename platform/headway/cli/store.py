"""`headway store`: what lies in a store, what of it is garbage, and a run copied to another store."""

import time
from typing import Annotated, Any

import typer

from headway.cli.options import Json, Quiet, StoreUrl, choose_run, choose_store
from headway.cli.screen import bar, count, result, show, size, span, table
from headway.errors import DamageError, UsageError
from headway.objectstore import Store, open_store
from headway.runs import Run, keys, run_names
from headway.runs.garbage import Garbage, garbage

DAY_SECONDS = 86_400.0
COLUMNS = ("run", ">entries", ">checkpoints", ">their size", ">garbage", ">all")
Runs = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Which runs. Default: all.")]

app = typer.Typer(help="Look into a store, tidy it, copy runs between stores.", no_args_is_help=True)


@app.command("ls")
def ls(
    run: Runs = None,
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List what each run takes: journal entries, checkpoints, garbage (what nobody will ever read), and all of it.

    Example: **headway store ls --store s3://bucket/runs**
    """
    chosen = choose_store(store)
    rows = [_row(each) for each in _runs(chosen, run)]
    if not rows and not as_json:
        show(f"no runs in {chosen.url} yet; begin one with headway train RECIPE", quiet=quiet)
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
    result({"store": chosen.url, "runs": rows}, table(COLUMNS, cells), as_json=as_json)


@app.command("gc")
def gc(
    run: Runs = None,
    store: StoreUrl = None,
    older_than: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Age from which an unfinished write counts as abandoned.")
    ] = DAY_SECONDS,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete what nobody will ever read: saves that were killed midway, and what retention gave up but did not delete.

    Safe at any time, also while runs are trained: only what an attempt left behind that can never commit again is
    deleted, by the journal, not by age. Writes that were begun and never finished, which no journal knows, go by age,
    unless runs are named.

    Example: **headway store gc --dry-run**
    """
    chosen = choose_store(store)
    deleted: list[dict[str, Any]] = []
    together: dict[tuple[str, str, str], list[int | None]] = {}
    for each in _runs(chosen, run):
        lengths = dict(chosen.sizes(keys.checkpoints(each.name)))
        for found in _garbage(each, quiet=quiet):
            length = lengths.get(found.key, 0)
            deleted.append({"key": found.key, "reason": found.reason, "bytes": length})
            together.setdefault((each.name, count(keys.tokens_of(found.key)), found.reason), []).append(length)
            if not dry_run:
                chosen.delete(found.key)
    for begun in chosen.unfinished() if run is None else ():
        age = time.time() - begun.since
        if age >= older_than:
            reason = f"begun {span(age)} ago, never finished"
            deleted.append({"key": begun.what, "reason": reason, "bytes": None})
            together.setdefault(("-", "-", reason), []).append(None)
            if not dry_run:
                chosen.discard(begun)
    freed = sum(length or 0 for found in together.values() for length in found)
    rows = [
        (name, tokens, count(len(found)), "-" if None in found else size(sum(length or 0 for length in found)), why)
        for (name, tokens, why), found in together.items()
    ]
    shown = table(("run", ">checkpoint at", ">objects", ">size", "why"), rows)
    document = {"store": chosen.url, "dry_run": dry_run, "objects": deleted, "bytes": freed}
    result(document, shown if deleted else f"nothing to delete in {chosen.url}", as_json=as_json)
    if deleted:
        number = "1 object" if len(deleted) == 1 else f"{count(len(deleted))} objects"
        show(f"headway: {'would delete' if dry_run else 'deleted'} {number} with {size(freed)}", quiet=quiet)


@app.command("cp")
def cp(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")],
    to: Annotated[str, typer.Argument(metavar="URL", help="The store to copy it to.")],
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a run to another store: every byte checked as it is read, and again where it has arrived.

    The copy becomes true last, so one that was broken off is no run yet: the same command goes on with it.

    Example: **headway store cp quickstart s3://bucket/runs --store file:///shared/runs**
    """
    from headway.checkpoint import run_copy

    found, target = choose_run(run, store), open_store(to)
    if target.url == found.store.url:
        raise UsageError(f"run {run} lies in {target.url} already; name another store")
    history = found.history()
    with bar(quiet=quiet) as progress:
        task = progress.add_task("copying", total=run_copy.size(history), note="")
        for done in run_copy.copy_run(found, target):
            progress.advance(task, done)
    copied = Run(target, run).history()
    length = sum(commit.bytes for commit in copied.commits)
    document = {
        "run": run,
        "from": found.store.url,
        "to": target.url,
        "checkpoints": [commit.tokens for commit in copied.commits],
        "bytes": length,
    }
    number = "1 checkpoint" if len(copied.commits) == 1 else f"{count(len(copied.commits))} checkpoints"
    text = f"copied run {run} to {target.url}: {number} with {size(length)}"
    result(document, text, as_json=as_json)


def _runs(store: Store, wanted: list[str] | None) -> list[Run]:
    return [Run.existing(store, name) for name in wanted] if wanted else [Run(store, name) for name in run_names(store)]


def _garbage(run: Run, *, quiet: bool) -> list[Garbage]:
    try:
        return list(garbage(run))
    except DamageError as error:
        show(f"headway: left alone: {error}", quiet=quiet)
        return []


def _row(run: Run) -> dict[str, Any]:
    """What one run takes."""
    lengths = dict(run.store.sizes(keys.run(run.name)))
    history = run.history()
    try:
        wasted: int | None = sum(lengths.get(found.key, 0) for found in garbage(run))
    except DamageError:
        wasted = None
    return {
        "run": run.name,
        "entries": len(run.journal.entries),
        "checkpoints": len(history.commits),
        "checkpoint_bytes": sum(commit.bytes for commit in history.commits),
        "garbage_bytes": wasted,
        "objects": len(lengths),
        "bytes": sum(lengths.values()),
    }
