"""What people and programs see: results on standard output, all else on standard error."""

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

WIDE = 1000
"""Columns of a console that is no terminal: what is piped on is never folded."""
FOLDED = 28
"""Columns that a folded column keeps at least."""
COLOURS = {
    "done": "green",
    "running": "cyan",
    "starting": "cyan",
    "pending": "blue",
    "submitted": "blue",
    "preempted": "dark_orange",
    "rolled back": "magenta",
    "failed": "red",
    "killed": "red",
    "lost": "red",
    "damaged": "red",
}
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def show(text: str, *, quiet: bool = False) -> None:
    """Say something to a person, on standard error."""
    if not quiet:
        print(text, file=sys.stderr)  # noqa: T201 - this is the command line


def result(document: Any, shown: RenderableType, *, as_json: bool) -> None:
    """Print a command's result on standard output: for a program, or for a person."""
    if as_json:
        print(json.dumps(_finite(document), indent=1))  # noqa: T201 - this is the command line
    elif isinstance(shown, str):
        print(shown)  # noqa: T201 - this is the command line
    elif sys.stdout.isatty():
        console = Console(highlight=False)
        least = Measurement.get(console, console.options.update(max_width=WIDE), shown).minimum
        console.width = max(console.width, least)  # a narrow terminal folds lines; it does not lose any of them
        console.print(shown)
    else:
        print(_plain(shown))  # noqa: T201 - this is the command line
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None) -> Table:
    """A table; a column whose name begins with `>` is flush right. Only the last column is ever folded."""
    shown = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, title=title, title_justify="left")
    shown.title_style = "bold"
    cells = list(rows)
    for index, column in enumerate(columns):
        name, right, last = column.removeprefix(">"), column.startswith(">"), index == len(columns) - 1
        width = max(Text.assemble(cell).cell_len for cell in (name, *(row[index] for row in cells)))
        shown.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=not last,
            min_width=min(width, FOLDED) if last else width,
            header_style="bold",
        )
    for row in cells:
        shown.add_row(*row)
    return shown


def listing(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Text:
    """A table of many rows, laid out ten times as fast as by `table`; nothing in it is folded."""
    names = [Text(column.removeprefix(">"), "bold") for column in columns]
    cells = [names, *([Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    shown = Text(no_wrap=True, overflow="ignore")
    for number, row in enumerate(cells):
        shown.append("\n" if number else "")
        for cell, width, column in zip(row, widths, columns, strict=True):
            space = " " * (width - cell.cell_len)
            shown.append(f" {space}" if column.startswith(">") else " ").append_text(cell)
            shown.append(" " if column.startswith(">") else f"{space} ")
    return shown


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and what they are, below each other."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def bar(*, quiet: bool = False) -> Progress:
    """A progress bar by bytes on standard error; nothing off a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


def coloured(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=COLOURS.get(state, ""))


def count(number: int | None) -> str:
    """A number with its thousands marked."""
    return "-" if number is None else f"{number:,}"


def decimal(number: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point."""
    return "-" if number is None else f"{number:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0 to 1."""
    return "-" if share is None else f"{share:.{digits}%}"


def size(length: float) -> str:
    """A length [bytes] in the unit that suits it."""
    power = min(int(math.log10(length) // 3), len(UNITS) - 1) if length >= 1 else 0
    return f"{length / 1000**power:.{1 if power else 0}f} {UNITS[power]}"


def span(seconds: float) -> str:
    """A length of time, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def ago(moment: float | None) -> str:
    """How long ago a moment [s since 1970] was."""
    return "-" if moment is None else f"{span(max(0.0, time.time() - moment))} ago"


def clock(moment: float) -> str:
    """A moment [s since 1970] in local time."""
    return f"{datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M:%S}"


def _plain(shown: RenderableType) -> str:
    """What is piped on: as wide as it is, without colours."""
    console = Console(width=WIDE, highlight=False, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def _finite(document: Any) -> Any:
    """`document` with None for what JSON has no number for."""
    if isinstance(document, float) and not math.isfinite(document):
        return None
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return document
