"""`headway runs`."""

from dataclasses import dataclass
from typing import Any

from headway.cli.options import Json, Quiet, StoreUrl, chosen_store
from headway.cli.screen import ago, coloured, count, decimal, percent, result, show, table
from headway.store import Run, names
from headway.store.curve import newest_losses
from headway.store.standing import Standing, standing

COLUMNS = (
    "run",
    "state",
    ">tokens",
    ">of",
    ">",
    ">loss",
    ">held-out",
    ">attempts",
    ">checkpoints",
    ">last seen",
)


@dataclass(frozen=True)
class Row:
    """One run."""

    standing: Standing
    loss: float | None
    held_out: float | None


def runs(store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """List all runs: how far they are, how well they learn, and whether anybody is alive on them.

    Example: **headway runs --store file:///shared/runs**
    """
    chosen = chosen_store(store)
    rows = [
        Row(standing(run), *newest_losses(chosen, run.name)) for run in (Run(chosen, name) for name in names(chosen))
    ]
    document = {"store": chosen.url, "runs": [_document(row) for row in rows]}
    if not rows and not as_json:
        show(f"no runs in {chosen.url} yet; begin one with headway train RECIPE", quiet=quiet)
        return
    result(document, table(COLUMNS, [_cells(row) for row in rows]), as_json=as_json)
    for row in rows:
        if row.standing.problem:
            show(f"headway: run {row.standing.run}: {row.standing.problem}", quiet=quiet)


def _document(row: Row) -> dict[str, Any]:
    stands = row.standing
    return {
        "run": stands.run,
        "state": stands.state,
        "tokens": stands.tokens,
        "budget": stands.budget,
        "share": stands.share,
        "loss": row.loss,
        "held_out": row.held_out,
        "attempts": len(stands.tries),
        "checkpoints": len(stands.history.commits),
        "seen": stands.seen,
        "problem": stands.problem,
    }


def _cells(row: Row) -> list[Any]:
    stands = row.standing
    return [
        stands.run,
        coloured(stands.state),
        count(stands.tokens),
        count(stands.budget),
        percent(stands.share),
        decimal(row.loss),
        decimal(row.held_out),
        count(len(stands.tries)),
        count(len(stands.history.commits)),
        ago(stands.seen),
    ]
