"""Where a run's time went: `headway ledger` and `headway goodput`."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from headway.cli.options import Json, Quiet, RunName, StoreUrl, choose_run
from headway.cli.screen import coloured, percent, result, show, span, table
from headway.reports.time_accounting import RankTime, TimeAccounting
from headway.reports.time_accounting import account_time as account_for
from headway.reports.wall_time import wall_time
from headway.telemetry.phases import PHASES

MEANING = {
    "queue": "waited for machines; a rank holds none yet",
    "startup": "loaded code, built the model, found the other ranks",
    "restore": "read the checkpoint to go on from",
    "data": "a step waited for its batch",
    "step": "trained: forward, backward, optimizer",
    "checkpoint": "training stood still to copy its state, or until the save before was done",
    "evaluation": "measured the held-out loss",
    "drain": "saved and said goodbye after the last step",
    "lost": "trained or started, then killed before a commit: done again",
    "between": "no attempt had the run, or not yet all of its ranks",
}


def ledger(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show where every second of every rank went, attempt by attempt: the phases add up to the rank's wall clock.

    What an attempt did after its last checkpoint, and then was killed or failed, is `lost`.

    Example: **headway ledger quickstart**
    """
    account = account_for(choose_run(run, store))
    phases = [phase for phase in PHASES if account.phases[phase]]
    columns = ("attempt", "rank", "outcome", *(f">{phase}" for phase in phases), ">sum", ">wall clock", ">difference")
    document = {
        "run": run,
        "running": account.running,
        "phases": account.phases,
        "total": account.total,
        "rows": [_document(line) for line in account.lines],
    }
    rows: list[Sequence[str | Text]] = [
        [
            str(line.attempt),
            str(line.rank),
            coloured(line.outcome),
            *(_seconds(line.phases[phase]) for phase in phases),
            _seconds(line.booked),
            _seconds(line.wall),
            _exact(line.difference),
        ]
        for line in account.lines
    ]
    totals = [*(_seconds(account.phases[phase]) for phase in phases), _seconds(account.total)]
    spans, difference = sum(line.wall for line in account.lines), sum(line.difference for line in account.lines)
    rows.append(["all", "", "", *totals, _seconds(spans), _exact(difference)])
    result(document, table(columns, rows, title="Seconds of each rank, by phase"), as_json=as_json)
    _note(account, quiet=quiet)


def goodput(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show which share of the time was training that counts, and what the rest was; two ways, for two questions.

    Rank-time adds up what each rank held a machine for, so the queue has no share in it: were the machines used well?
    The wall clock averages over the ranks, and counts the queue and the time between attempts: how much sooner could
    it have been done? Its column adds up to the time from the first submission to the last end.

    Example: **headway goodput quickstart --json | jq '.goodput, .wall_goodput'**
    """
    account = account_for(choose_run(run, store))
    clock = wall_time(account)
    spent = {**clock.phases, "between": clock.between}
    shares = {
        phase: seconds / account.held if account.held else 0.0
        for phase, seconds in account.phases.items()
        if phase != "queue"
    }
    wall_shares = {name: seconds / clock.elapsed if clock.elapsed else 0.0 for name, seconds in spent.items()}
    document = {
        "run": run,
        "attempts": account.attempts,
        "goodput": account.goodput,
        "rank_seconds": account.phases,
        "held": account.held,
        "shares": shares,
        "wall_goodput": clock.goodput,
        "wall_seconds": spent,
        "wall_shares": wall_shares,
        "sum": clock.sum,
        "elapsed": clock.elapsed,
        "difference": clock.difference,
    }
    named = sorted((name for name in spent if spent[name] or account.phases.get(name)), key=lambda name: -spent[name])
    rows = [
        [
            name,
            span(account.phases[name]) if name in account.phases else "",
            percent(shares[name], 2) if name in shares else "",
            span(spent[name]),
            percent(wall_shares[name], 2),
            MEANING[name],
        ]
        for name in named
    ]
    whole = percent(1.0 if account.held else None, 2)
    rows += [
        [
            "sum",
            span(account.held),
            whole,
            span(clock.sum),
            percent(sum(wall_shares.values()), 2),
            "rank-time but queue",
        ],
        ["elapsed", "", "", span(clock.elapsed), "", "from the first submission to the last end"],
        ["difference", "", "", f"{_exact(clock.difference)} s", "", "what the columns do not account for"],
        ["goodput", "", percent(account.goodput, 2), "", percent(clock.goodput, 2), "the share of `step`"],
    ]
    columns = ("phase", ">rank-time", ">share", ">wall clock", ">share", "what it was")
    result(document, table(columns, rows), as_json=as_json)
    _note(account, quiet=quiet)


def _document(line: RankTime) -> dict[str, Any]:
    return {
        "attempt": line.attempt,
        "rank": line.rank,
        "outcome": line.outcome,
        "began": line.began,
        "ended": line.ended,
        "phases": dict(line.phases),
        "sum": line.booked,
        "wall": line.wall,
        "difference": line.difference,
    }


def _note(account: TimeAccounting, *, quiet: bool) -> None:
    if account.running is not None:
        show(f"headway: attempt {account.running} runs; its time is told up to its last checkpoint", quiet=quiet)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f}"


def _exact(seconds: float) -> str:
    return f"{round(seconds, 3) + 0.0:.3f}"
