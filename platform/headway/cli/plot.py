"""`headway plot`."""

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Quiet, RunName, StoreUrl, choose_run
from headway.cli.screen import result
from headway.errors import HeadwayError, UsageError
from headway.localfiles import local_path
from headway.reports.curve import read_curve
from headway.reports.status import run_status
from headway.reports.time_accounting import account_time
from headway.runs.run_log import read_lines


def plot(
    run: RunName,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", parser=local_path, metavar="FILE", help="Image file: .png, .pdf or .svg. Default: RUN.png."
        ),
    ] = None,
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a run: loss, learning rate and throughput over tokens, its stops, and the time of each attempt.

    Tokens that two attempts trained are drawn once, as the later attempt trained them.

    Example: **headway plot quickstart --to quickstart.pdf**
    """
    del quiet  # the command prints nothing but its result
    selected = choose_run(run, store)
    training_curve = read_curve(read_lines(selected.store, run))
    if not training_curve.points:
        raise UsageError(f"run {run} has no logged steps, so there is nothing to draw; train it first")
    target = to or Path(f"{run}.png")

    from headway.cli.figure import FORMATS, draw

    if target.suffix not in FORMATS:
        raise UsageError(f"{target}: unknown image format; use a name that ends in {', '.join(FORMATS)}")
    status = run_status(selected)
    try:
        draw(target, status, training_curve, account_time(selected))
    except OSError as error:
        raise HeadwayError(f"{target}: cannot be written: {error.strerror}") from error
    document = {
        "run": run,
        "file": str(target),
        "points": len(training_curve.points),
        "held_out": len(training_curve.held_out),
        "attempts": len(status.attempts),
    }
    result(document, str(target), as_json=as_json)
