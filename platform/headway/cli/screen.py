"""Output: results go to standard output, everything else to standard error.

What is printed may come from a store that anybody wrote: it is text, never markup or a terminal's escapes.
"""

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from headway.errors import UsageError
from headway.output_text import one_line, printable, strict_json

WIDE = 1000
"""Width of a console that is not a terminal, so that piped output is never folded."""
MIN_FOLDED_WIDTH = 28
"""Smallest width of a folded column."""
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
MAX_SECONDS = 1e12
"""Longest duration that is shown [s], 30,000 years. A longer one is a wrong clock or a forged time."""
MAX_BYTES = 1e21
"""Largest size that is shown [bytes]: a million petabytes."""
UNKNOWN = "?"
"""Stands for a number that means nothing, such as a time of NaN."""


class TextConsole(Console):
    """A console that takes text for text: no markup, no emoji codes, and control characters as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`. Everything on a console comes by here."""
        for segment in super().render(renderable, options):
            text = segment.text
            yield segment if segment.control or text.isprintable() else segment._replace(text=printable(text))


def show(text: str, *, quiet: bool = False) -> None:
    """Prints a message on standard error."""
    if not quiet:
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201 - this is the command line


def result(document: Any, text: RenderableType, *, as_json: bool) -> None:
    """Prints a command's result on standard output: `document` as JSON, or `text`."""
    with standard_output():
        if as_json:
            print(strict_json(document, indent=1))  # noqa: T201 - this is the command line
        elif isinstance(text, str):
            print(printable(text))  # noqa: T201 - this is the command line
        elif sys.stdout.isatty():
            console = TextConsole()
            least = Measurement.get(console, console.options.update(max_width=WIDE), text).minimum
            console.width = max(console.width, least)  # a narrow terminal folds lines and loses none
            console.print(text)
        else:
            print(_plain(text))  # noqa: T201 - this is the command line


@contextmanager
def standard_output(*, flush: bool = True) -> Iterator[None]:
    """The block prints to standard output; with `flush`, all is written at its end.

    Raises:
        UsageError: standard output cannot be written, as on a full disk.
    """
    try:
        yield
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough, as `head`
        raise
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - at the exit, Python would try again to write the rest
        raise UsageError(f"standard output cannot be written: {error.strerror}") from error


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None) -> Table:
    """A table. A column whose name starts with `>` is right-aligned. Only the last column is ever folded."""
    grid = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, title=title, title_justify="left")
    grid.title_style = "bold"
    cells = [[_cell(cell) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        name, right, last = column.removeprefix(">"), column.startswith(">"), index == len(columns) - 1
        width = max([Text(name).cell_len, *(row[index].cell_len for row in cells)])
        grid.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=not last,
            min_width=min(width, MIN_FOLDED_WIDTH) if last else width,
            header_style="bold",
        )
    for row in cells:
        grid.add_row(*row)
    return grid


def listing(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Text:
    """A table of many rows without folding, ten times as fast as `table`."""
    names = [Text(column.removeprefix(">"), "bold") for column in columns]
    cells: list[Sequence[str | Text]] = [names]
    cells += ([cell if isinstance(cell, Text) else one_line(cell) for cell in row] for row in rows)
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    text = Text(no_wrap=True, overflow="ignore")
    for number, row in enumerate(cells):
        text.append("\n" if number else "")
        for cell, width, column in zip(row, widths, columns, strict=True):
            space = " " * (width - _width(cell))
            before, after = (space, "") if column.startswith(">") else ("", space)
            if isinstance(cell, Text):
                text.append(f" {before}").append_text(cell).append(f"{after} ")
            else:
                text.append(f" {before}{cell}{after} ")
    return text


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair per line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*map(_cell, row))
    return grid


def bar(*, quiet: bool = False) -> Progress:
    """A progress bar in bytes on standard error; hidden if that is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
        console=TextConsole(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


def coloured(state: str) -> Text:
    """A state in its colour."""
    return Text(one_line(state), style=COLOURS.get(state, ""))


def count(number: int | None) -> str:
    """A number with thousands separators."""
    return "-" if number is None else f"{number:,}"


def decimal(number: float | None, digits: int = 3) -> str:
    """A number with `digits` decimals."""
    return "-" if number is None else f"{number:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share from 0 to 1 as a percentage."""
    return "-" if share is None else f"{share:.{digits}%}"


def size(length: float) -> str:
    """A size [bytes] in a readable unit."""
    if not 0 <= length < MAX_BYTES:
        return UNKNOWN
    power = min(int(math.log10(length) // 3), len(UNITS) - 1) if length >= 1 else 0
    return f"{length / 1000**power:.{1 if power else 0}f} {UNITS[power]}"


def span(seconds: float) -> str:
    """A duration [s] in its two largest units."""
    if not abs(seconds) < MAX_SECONDS:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def ago(moment: float | None) -> str:
    """The age of a time [s since 1970]."""
    if moment is None:
        return "-"
    return f"{span(max(0.0, time.time() - moment))} ago" if abs(moment) < MAX_SECONDS else UNKNOWN


def clock(moment: float) -> str:
    """A time [s since 1970] as local time."""
    try:
        return f"{datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # beyond the years 1 to 9999
        return UNKNOWN


def _cell(text: str | Text) -> Text:
    """A cell of a table, on one line."""
    return text if isinstance(text, Text) else Text(one_line(text))


def _width(cell: str | Text) -> int:
    """Columns that a cell takes in a terminal."""
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)


def _plain(text: RenderableType) -> str:
    """Piped output: full width, without colours."""
    console = TextConsole(width=WIDE, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(text)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
