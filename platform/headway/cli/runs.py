"""`headway runs`."""

from typing import Any

from headway.cli.options import Json, Quiet, StoreUrl, choose_store
from headway.cli.screen import ago, coloured, count, decimal, listing, percent, result, show
from headway.reports.overview import RunOverview, overview
from headway.runs import run_names, strays_among_runs, submissions

COLUMNS = ("run", "state", ">tokens", ">of", ">", ">loss", ">held-out", ">attempts", ">goodput", ">last seen")
SUBMITTED = "submitted"
"""State of a run that was submitted to SLURM and has not started."""


def runs(store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """List all runs with their state, progress, losses and goodput.

    Submitted runs that have not started come last; **headway status NAME** shows what they wait for.

    Example: **headway runs --store file:///shared/runs**
    """
    source = choose_store(store)
    existing = run_names(source)
    overviews = overview(source, existing)
    rows = [row for row in overviews if row.finding is None]
    sent, findings = submissions.scan(source)
    findings += [row.finding for row in overviews if row.finding] + strays_among_runs(source)
    submitted = {
        submission.name: [member.run for member in submission.members if member.run not in set(existing)]
        for submission in sent
        if submission.jobs and not submission.jobs[-1].cancelled
    }
    waiting = {name: names for name, names in submitted.items() if names}
    document = {
        "store": source.url,
        "runs": [_document(row) for row in rows]
        + [{"run": run, "state": SUBMITTED} for names in waiting.values() for run in names],
        "findings": findings,
    }
    if rows or waiting or as_json:
        cells = [_cells(row) for row in rows] + [_waiting(name, names) for name, names in waiting.items()]
        result(document, listing(COLUMNS, cells), as_json=as_json)
    else:
        show(f"no runs in {source.url} yet; start one with headway train RECIPE", quiet=quiet)
    for problem in [*(f"run {row.run}: {row.problem}" for row in rows if row.problem), *findings]:
        show(f"headway: {problem}", quiet=quiet)


def _document(row: RunOverview) -> dict[str, Any]:
    """A run for `--json`."""
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
        "seen": row.last_seen,
        "problem": row.problem,
    }


def _cells(row: RunOverview) -> list[Any]:
    """A run for a terminal."""
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
        ago(row.last_seen),
    ]


def _waiting(name: str, runs: list[str]) -> list[Any]:
    """One line for all runs of a submission that have not started."""
    title = name if runs == [name] else f"{name} ({len(runs):,} runs)"
    return [title, coloured(SUBMITTED), *["-"] * (len(COLUMNS) - 2)]
