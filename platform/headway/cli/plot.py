"""`headway plot`."""

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Quiet, RunName, StoreUrl, chosen_run
from headway.cli.screen import result
from headway.errors import HeadwayError, UsageError
from headway.store.account import account
from headway.store.curve import curve
from headway.store.record import events
from headway.store.standing import standing


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
    found = chosen_run(run, store)
    drawn = curve(event for _, event in events(found.store, run))
    if not drawn.points:
        raise UsageError(f"run {run} has not said a word about a step yet, so there is nothing to draw; train it first")
    target = to or Path(f"{run}.png")

    from headway.cli.figure import FORMATS, draw

    if target.suffix not in FORMATS:
        raise UsageError(f"{target}: no such kind of picture; name a file that ends in {', '.join(FORMATS)}")
    stands = standing(found)
    try:
        draw(target, stands, drawn, account(found))
    except OSError as error:
        raise HeadwayError(f"{target}: cannot be written: {error.strerror}") from error
    document = {
        "run": run,
        "file": str(target),
        "points": len(drawn.points),
        "held_out": len(drawn.held_out),
        "attempts": len(stands.tries),
    }
    result(document, str(target), as_json=as_json)
