"""`headway runs`."""

from typing import Any

from headway.cli.options import Json, Quiet, StoreUrl, choose_store
from headway.cli.screen import ago, coloured, count, decimal, listing, percent, result, show
from headway.reports.overview import RunOverview, overview
from headway.runs import run_names, submissions

COLUMNS = ("run", "state", ">tokens", ">of", ">", ">loss", ">held-out", ">attempts", ">goodput", ">last seen")
SUBMITTED = "submitted"
"""State of a run that SLURM was asked for and that has not begun."""


def runs(store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """List all runs: how far they are, how well they learn, and whether anybody is alive on them.

    Runs that were submitted and have not begun come last; **headway status NAME** says what they wait for.

    Example: **headway runs --store file:///shared/runs**
    """
    chosen = choose_store(store)
    begun = run_names(chosen)
    rows = overview(chosen, begun)
    submitted = {
        each.name: [member.run for member in each.members if member.run not in set(begun)]
        for each in submissions.all_submissions(chosen)
        if each.sent and not each.sent[-1].cancelled
    }
    waiting = {name: its for name, its in submitted.items() if its}
    document = {
        "store": chosen.url,
        "runs": [_document(row) for row in rows]
        + [{"run": run, "state": SUBMITTED} for its in waiting.values() for run in its],
    }
    if not rows and not waiting and not as_json:
        show(f"no runs in {chosen.url} yet; begin one with headway train RECIPE", quiet=quiet)
        return
    cells = [_cells(row) for row in rows] + [_waiting(name, its) for name, its in waiting.items()]
    result(document, listing(COLUMNS, cells), as_json=as_json)
    for row in rows:
        if row.problem:
            show(f"headway: run {row.run}: {row.problem}", quiet=quiet)


def _document(row: RunOverview) -> dict[str, Any]:
    return {
        "run": row.run,
        "state": row.state,
        "tokens": row.tokens,
        "budget": row.budget,
        "share": row.share,
        "loss": row.loss,
        "held_out": row.held_out,
        "attempts": row.attempts,
        "preemptions": row.preemptions,
        "failures": row.failures,
        "goodput": row.goodput,
        "seen": row.seen,
        "problem": row.problem,
    }


def _cells(row: RunOverview) -> list[Any]:
    return [
        row.run,
        coloured(row.state),
        count(row.tokens),
        count(row.budget),
        percent(row.share),
        decimal(row.loss),
        decimal(row.held_out),
        count(row.attempts),
        percent(row.goodput),
        ago(row.seen),
    ]


def _waiting(name: str, runs: list[str]) -> list[Any]:
    """One line for all runs of an array that have not begun."""
    what = name if runs == [name] else f"{name} ({len(runs):,} runs)"
    return [what, coloured(SUBMITTED), *["-"] * (len(COLUMNS) - 2)]
