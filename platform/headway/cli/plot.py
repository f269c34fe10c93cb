"""`headway plot`."""

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Quiet, RunName, StoreUrl, choose_run
from headway.cli.screen import result
from headway.errors import HeadwayError, UsageError
from headway.reports.curve import curve
from headway.reports.status import run_status
from headway.reports.time_accounting import account_time
from headway.runs.run_log import read_events


def plot(
    run: RunName,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Picture to write: .png, .pdf or .svg. Default: RUN.png."),
    ] = None,
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a run: loss, learning rate and speed over tokens, where it was stopped, and where the time went.

    What a later attempt trained again is drawn once, as the later one trained it.

    Example: **headway plot quickstart --to quickstart.pdf**
    """
    del quiet  # a plot is nothing but its result
    found = choose_run(run, store)
    drawn = curve(event for _, event in read_events(found.store, run))
    if not drawn.points:
        raise UsageError(f"run {run} has not said a word about a step yet, so there is nothing to draw; train it first")
    target = to or Path(f"{run}.png")

    from headway.cli.figure import FORMATS, draw

    if target.suffix not in FORMATS:
        raise UsageError(f"{target}: no such kind of picture; name a file that ends in {', '.join(FORMATS)}")
    stands = run_status(found)
    try:
        draw(target, stands, drawn, account_time(found))
    except OSError as error:
        raise HeadwayError(f"{target}: cannot be written: {error.strerror}") from error
    document = {
        "run": run,
        "file": str(target),
        "points": len(drawn.points),
        "held_out": len(drawn.held_out),
        "attempts": len(stands.attempts),
    }
    result(document, str(target), as_json=as_json)
