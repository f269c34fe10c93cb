"""Where a run's time went: `headway ledger` and `headway goodput`."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from headway.cli.options import Json, Quiet, RunName, StoreUrl, chosen_run
from headway.cli.screen import coloured, percent, result, show, span, table
from headway.store.account import Account, Line
from headway.store.account import account as account_for
from headway.store.record import PHASES

MEANING = {
    "queue": "waited for machines",
    "startup": "loaded code, built the model, found the other ranks",
    "restore": "read the checkpoint to go on from",
    "data": "a step waited for its batch",
    "step": "trained: forward, backward, optimizer",
    "checkpoint": "training stood still to copy its state, or until the save before was done",
    "evaluation": "measured the held-out loss",
    "drain": "saved and said goodbye after the last step",
    "lost": "trained or started, then killed before a commit: done again",
}


def ledger(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show where every second of every rank went, attempt by attempt: the phases add up to the wall clock.

    What an attempt did after its last checkpoint, and then was killed or failed, is `lost`.

    Example: **headway ledger quickstart**
    """
    account = account_for(chosen_run(run, store))
    phases = [phase for phase in PHASES if account.phases[phase]]
    columns = ("attempt", "rank", "outcome", *(f">{phase}" for phase in phases), ">sum", ">wall clock", ">difference")
    document = {
        "run": run,
        "running": account.running,
        "phases": account.phases,
        "total": account.total,
        "idle": account.idle,
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
    wall, difference = sum(line.wall for line in account.lines), sum(line.difference for line in account.lines)
    rows.append(["all", "", "", *totals, _seconds(wall), _exact(difference)])
    result(document, table(columns, rows, title="Seconds of each rank, by phase"), as_json=as_json)
    _note(account, quiet=quiet)


def goodput(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show which share of all rank-time was training that counts, and what the rest was.

    Time between attempts, when nobody ran, is no rank's time: it is told apart.

    Example: **headway goodput quickstart --json | jq .goodput**
    """
    account = account_for(chosen_run(run, store))
    shares = {phase: seconds / account.total if account.total else 0.0 for phase, seconds in account.phases.items()}
    document = {
        "run": run,
        "goodput": account.goodput,
        "shares": shares,
        "rank_seconds": account.total,
        "elapsed": account.elapsed,
        "idle": account.idle,
        "attempts": len({line.attempt for line in account.lines}),
    }
    by_share = sorted((phase for phase in PHASES if account.phases[phase]), key=lambda phase: -shares[phase])
    rows = [
        [
            "goodput" if phase == "step" else phase,
            percent(shares[phase], 2),
            span(account.phases[phase]),
            MEANING[phase],
        ]
        for phase in by_share
    ]
    rows.append(
        [
            "all",
            percent(1.0 if account.total else None, 2),
            span(account.total),
            f"rank-time of {document['attempts']} attempts",
        ]
    )
    rows.append(["between", "", span(account.idle), f"nobody ran, of {span(account.elapsed)} from first to last"])
    result(document, table(("phase", ">share", ">rank-time", "what it was"), rows), as_json=as_json)
    _note(account, quiet=quiet)


def _document(line: Line) -> dict[str, Any]:
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


def _note(account: Account, *, quiet: bool) -> None:
    if account.running is not None:
        show(f"headway: attempt {account.running} runs; its time is told up to its last checkpoint", quiet=quiet)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f}"


def _exact(seconds: float) -> str:
    return f"{round(seconds, 3) + 0.0:.3f}"
