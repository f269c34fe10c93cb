"""The time of a run by phase: `headway ledger` and `headway goodput`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from headway.cli.options import Json, Quiet, RunName, StoreUrl, choose_run
from headway.cli.screen import coloured, percent, result, show, span, table
from headway.reports.time_accounting import RankTime, TimeAccounting, account_time
from headway.reports.wall_time import WallTime, wall_time
from headway.telemetry.phases import PHASES

PHASE_MEANINGS = {
    "queue": "waited in SLURM's queue; the rank holds no node yet",
    "startup": "loaded code, built the model, connected to the other ranks",
    "restore": "read the checkpoint to resume from",
    "data": "a step waited for its batch",
    "step": "trained: forward, backward, optimizer",
    "checkpoint": "training was blocked by a copy of its state or by the previous save",
    "evaluation": "measured the held-out loss",
    "drain": "saved and shut down after the last step",
    "lost": "trained or started, then killed before a commit: done again",
    "between": "no attempt had claimed the run, or some of its ranks were missing",
}
"""Meaning of each phase, for the last column of `headway goodput`."""


def ledger(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show how each rank of each attempt spent its time. The phases of a rank add up to its wall clock.

    The time of a killed or failed attempt after its last checkpoint is `lost`.

    Example: **headway ledger quickstart**
    """
    accounting = account_time(choose_run(run, store))
    phases = [phase for phase in PHASES if accounting.phases[phase]]
    columns = ("attempt", "rank", "outcome", *(f">{phase}" for phase in phases), ">sum", ">wall clock", ">difference")
    document = {
        "run": run,
        "running": accounting.running_attempt,
        "phases": accounting.phases,
        "total": accounting.total,
        "rows": [_document(line) for line in accounting.rank_times],
    }
    rows: list[Sequence[str | Text]] = [
        [
            str(line.attempt),
            str(line.rank),
            coloured(line.outcome),
            *(_seconds(line.phases[phase]) for phase in phases),
            _seconds(line.accounted),
            _seconds(line.elapsed),
            _exact(line.difference),
        ]
        for line in accounting.rank_times
    ]
    totals = [*(_seconds(accounting.phases[phase]) for phase in phases), _seconds(accounting.total)]
    elapsed, difference = (
        sum(line.elapsed for line in accounting.rank_times),
        sum(line.difference for line in accounting.rank_times),
    )
    rows.append(["all", "", "", *totals, _seconds(elapsed), _exact(difference)])
    result(document, table(columns, rows, title="Seconds of each rank, by phase"), as_json=as_json)
    _note_running(accounting, quiet=quiet)


def goodput(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show the share of time spent on training that counts, and where the rest went: by rank-time and by wall clock.

    Rank-time is the time that ranks held nodes, without the queue: were the nodes used well? The wall clock averages
    over the ranks, and includes the queue and the gaps between attempts: how much sooner could the run have been done?
    It adds up to the time from the first submission to the last end.

    Example: **headway goodput quickstart --json | jq '.goodput, .wall_goodput'**
    """
    accounting = account_time(choose_run(run, store))
    times = wall_time(accounting)
    wall_seconds = {**times.phases, "between": times.between}
    shares = {
        phase: seconds / accounting.allocated if accounting.allocated else 0.0
        for phase, seconds in accounting.phases.items()
        if phase != "queue"
    }
    wall_shares = {name: seconds / times.elapsed if times.elapsed else 0.0 for name, seconds in wall_seconds.items()}
    document = {
        "run": run,
        "attempts": accounting.attempts,
        "goodput": accounting.goodput,
        "rank_seconds": accounting.phases,
        "held": accounting.allocated,
        "shares": shares,
        "wall_goodput": times.goodput,
        "wall_seconds": wall_seconds,
        "wall_shares": wall_shares,
        "sum": times.sum,
        "elapsed": times.elapsed,
        "difference": times.difference,
    }
    columns = ("phase", ">rank-time", ">share", ">wall clock", ">share", "meaning")
    rows = [
        *_phase_rows(accounting, shares, wall_seconds, wall_shares),
        *_total_rows(accounting, times, sum(wall_shares.values())),
    ]
    result(document, table(columns, rows), as_json=as_json)
    _note_running(accounting, quiet=quiet)


def _phase_rows(
    accounting: TimeAccounting,
    shares: Mapping[str, float],
    wall_seconds: Mapping[str, float],
    wall_shares: Mapping[str, float],
) -> list[list[str]]:
    """A row for each phase that took time, the longest first."""
    phases = [name for name in wall_seconds if wall_seconds[name] or accounting.phases.get(name)]
    return [
        [
            name,
            span(accounting.phases[name]) if name in accounting.phases else "",
            percent(shares[name], 2) if name in shares else "",
            span(wall_seconds[name]),
            percent(wall_shares[name], 2),
            PHASE_MEANINGS[name],
        ]
        for name in sorted(phases, key=lambda name: -wall_seconds[name])
    ]


def _total_rows(accounting: TimeAccounting, times: WallTime, wall_share: float) -> list[list[str]]:
    """The rows below the phases: sums, elapsed time, their difference, and goodput."""
    share = percent(1.0 if accounting.allocated else None, 2)
    return [
        [
            "sum",
            span(accounting.allocated),
            share,
            span(times.sum),
            percent(wall_share, 2),
            "rank-time excludes the queue",
        ],
        ["elapsed", "", "", span(times.elapsed), "", "from the first submission to the last end"],
        ["difference", "", "", f"{_exact(times.difference)} s", "", "time that no phase accounts for"],
        ["goodput", "", percent(accounting.goodput, 2), "", percent(times.goodput, 2), "the share of `step`"],
    ]


def _document(line: RankTime) -> dict[str, Any]:
    """The time of a rank for `--json`."""
    return {
        "attempt": line.attempt,
        "rank": line.rank,
        "outcome": line.outcome,
        "began": line.started,
        "ended": line.ended,
        "phases": dict(line.phases),
        "sum": line.accounted,
        "wall": line.elapsed,
        "difference": line.difference,
    }


def _note_running(accounting: TimeAccounting, *, quiet: bool) -> None:
    """Notes that the time of a running attempt is incomplete."""
    if accounting.running_attempt is not None:
        show(
            f"headway: attempt {accounting.running_attempt} runs; its time is shown up to its last checkpoint",
            quiet=quiet,
        )


def _seconds(seconds: float) -> str:
    """Seconds with two digits."""
    return f"{seconds:,.2f}"


def _exact(seconds: float) -> str:
    """Seconds to the millisecond, without a negative zero."""
    return f"{round(seconds, 3) + 0.0:.3f}"
