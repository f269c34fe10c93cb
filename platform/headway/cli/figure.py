"""Draws a run: losses, learning rate, throughput, stops, and the time of each attempt."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from headway.localfiles import replacing
from headway.reports.curve import Curve
from headway.reports.status import RunStatus
from headway.reports.time_accounting import TimeAccounting
from headway.telemetry.phases import PHASES

FORMATS = (".png", ".pdf", ".svg")
INK, PALE = "#1b1f24", "#9aa4b0"
BLUE, ORANGE, RED = "#2166ac", "#f08c00", "#c92a2a"
RETRAINED = "#fbe3e3"
STOPS: dict[str, tuple[str, Any]] = {
    "preempted": (ORANGE, (0, (4, 2))),
    "killed": (RED, "solid"),
    "failed": ("#7b2d8e", (0, (1, 1.5))),
    "rolled back": ("#087f5b", (0, (6, 2, 1, 2))),
}
"""Colour and dashes by outcome of an attempt that stopped early."""
PHASE_COLOURS = {
    "queue": "#ced4da",
    "startup": "#adb5bd",
    "restore": "#9775fa",
    "data": "#ffd43b",
    "step": "#4c8fcb",
    "checkpoint": "#38a169",
    "evaluation": "#74c0c4",
    "drain": "#f4a261",
    "lost": "#d9534f",
}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e9ecef",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
MAX_LABELS = 24
"""Largest number of attempts with a label each; of more attempts, some have a label."""
MAX_VALUE = 1e100
"""Largest value that is drawn. matplotlib cannot scale an axis from one end of all numbers to the other."""


def draw(target: Path, status: RunStatus, curve: Curve, accounting: TimeAccounting) -> None:
    """Writes the figure: four panels below each other, the upper three over tokens.

    Raises:
        OSError: it cannot be written; a file that was there before is unchanged.
    """
    attempts = len({line.attempt for line in accounting.rank_times})
    height = min(3.4, 0.55 + 0.24 * max(2, attempts))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.4 + height), layout="constrained")
        grid = figure.add_gridspec(4, 1, height_ratios=[2.6, 1.1, 1.5, height])
        loss = figure.add_subplot(grid[0])
        rate, speed = figure.add_subplot(grid[1], sharex=loss), figure.add_subplot(grid[2], sharex=loss)
        _losses(loss, curve)
        _rates(rate, curve)
        _speeds(speed, curve)
        _stops((loss, rate, speed), status, curve)
        loss.legend(handles=_legend(status, curve), loc="lower right", bbox_to_anchor=(1.01, 1.01), ncols=7)
        for upper in (loss, rate):
            upper.tick_params(labelbottom=False)
        speed.set_xlabel("tokens")
        speed.xaxis.set_major_formatter(_thousands())
        speed.set_xlim(0, max(curve.points[-1].tokens, status.tokens) * 1.01)
        _time(figure.add_subplot(grid[3]), accounting)
        phases = [Patch(color=PHASE_COLOURS[phase], label=phase) for phase in PHASES if accounting.phases[phase]]
        figure.legend(handles=phases, loc="outside lower center", ncols=len(PHASES), handlelength=1)
        figure.suptitle(_title(status), x=0.01, ha="left", fontsize=10.5, color=INK)
        with replacing(target) as file:
            figure.savefig(file, format=target.suffix.removeprefix("."))


def _title(status: RunStatus) -> str:
    """Name, state and progress of the run."""
    budget = f" of {status.budget:,}" if status.budget else ""
    number = len(status.attempts)
    attempts = f"{number} attempt" + ("s" if number != 1 else "")
    return f"{status.run}: {status.state}, {status.tokens:,}{budget} tokens in {attempts}"


def _losses(axes: Axes, curve: Curve) -> None:
    """Draws training and held-out loss."""
    axes.plot(
        [p.tokens for p in curve.points], _drawable(p.loss for p in curve.points), color=BLUE, linewidth=1.1, zorder=3
    )
    if curve.held_out:
        tokens = sorted(curve.held_out)
        held_out = _drawable(curve.held_out[t] for t in tokens)
        axes.plot(tokens, held_out, "o", color=INK, markersize=4, markeredgecolor="white", zorder=4)
    axes.set_title("Loss")
    axes.set_ylabel("nats per token")


def _drawable(values: Iterable[float | None]) -> list[float]:
    """The values, with NaN, which leaves a gap, for one that is missing or that nobody measured."""
    return [math.nan if value is None or not abs(value) <= MAX_VALUE else value for value in values]


def _rates(axes: Axes, curve: Curve) -> None:
    """Draws the learning rate."""
    axes.plot(
        [p.tokens for p in curve.points], _drawable(p.learning_rate for p in curve.points), color=BLUE, linewidth=1.1
    )
    axes.set_title("Learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _speeds(axes: Axes, curve: Curve) -> None:
    """Draws the throughput of each step, and its running median."""
    tokens, speeds = [p.tokens for p in curve.points], _drawable(p.tokens_per_second for p in curve.points)
    axes.plot(tokens, speeds, color=PALE, linewidth=0.7)
    axes.plot(tokens, _smooth(speeds, max(2, len(speeds) // 60)), color=BLUE, linewidth=1.3)
    axes.set_title("Throughput")
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_thousands())


def _smooth(values: Sequence[float], neighbours: int) -> list[float]:
    """The running median over `neighbours` values on each side."""
    return [median(values[max(0, i - neighbours) : i + neighbours + 1]) for i in range(len(values))]


def _stops(panels: Sequence[Axes], status: RunStatus, curve: Curve) -> None:
    """Marks where attempts stopped early, and shades the tokens that were trained again."""
    top = panels[0].get_xaxis_transform()
    stopped = [attempt for attempt in status.attempts if attempt.outcome in STOPS]
    width = 1.0 if len(stopped) <= MAX_LABELS else 0.5
    for attempt in stopped:
        colour, dashes = STOPS[attempt.outcome]
        at = curve.tokens_reached.get(attempt.number, attempt.tokens_committed)
        for axes in panels:
            axes.axvline(at, color=colour, linestyle=dashes, linewidth=width, zorder=2)
            if at > attempt.tokens_committed:
                axes.axvspan(attempt.tokens_committed, at, color=RETRAINED, linewidth=0, zorder=0)
        panels[0].plot([at], [1], "v", color=colour, markersize=5 * width**0.5, transform=top, clip_on=False)


def _legend(status: RunStatus, curve: Curve) -> list[Artist]:
    """The legend of the lines that are drawn."""
    handles: list[Artist] = [Line2D([], [], color=BLUE, linewidth=1.1, label="training")]
    if curve.held_out:
        handles.append(Line2D([], [], color=INK, marker="o", linestyle="none", markersize=4, label="held-out"))
    for outcome, (colour, dashes) in STOPS.items():
        number = sum(attempt.outcome == outcome for attempt in status.attempts)
        if number:
            label = outcome if number == 1 else f"{outcome} ×{number}"
            handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=1.0, label=label))
    if any(
        curve.tokens_reached.get(each.number, 0) > each.tokens_committed
        for each in status.attempts
        if each.outcome in STOPS
    ):
        handles.append(Patch(color=RETRAINED, label="trained again"))
    return handles


def _time(axes: Axes, accounting: TimeAccounting) -> None:
    """Draws a bar for each attempt: its phases side by side, as the mean over its ranks."""
    numbers = sorted({line.attempt for line in accounting.rank_times})
    longest = 0.0
    unit, name = _unit(max((line.elapsed for line in accounting.rank_times), default=1.0))
    for row, number in enumerate(numbers):
        lines = [line for line in accounting.rank_times if line.attempt == number]
        offset = 0.0
        for phase in PHASES:
            width = sum(line.phases[phase] for line in lines) / len(lines) / unit
            if width:
                axes.barh(row, width, left=offset, height=0.72, color=PHASE_COLOURS[phase], linewidth=0)
            offset += width
        longest = max(longest, offset)
        if len(numbers) <= MAX_LABELS:
            axes.text(offset, row, f"  {lines[0].outcome}", va="center", ha="left", fontsize=7.5, color=INK)
    axes.set_title(f"Time by phase: goodput {accounting.goodput:.1%}")
    axes.set_xlabel(f"time of an attempt [{name}], mean over its ranks")
    axes.set_ylabel("attempt")
    every = -(-len(numbers) // MAX_LABELS) or 1
    axes.set_yticks(range(0, len(numbers), every), [str(number) for number in numbers[::every]])
    axes.set_ylim(max(len(numbers), 1) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.12 or 1)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(_thousands())


def _unit(longest: float) -> tuple[float, str]:
    """A unit for durations up to `longest` [s]: its length in seconds, and its name."""
    if longest < 600:
        return 1.0, "s"
    return (60.0, "min") if longest < 36_000 else (3600.0, "h")


def _thousands() -> FuncFormatter:
    """A tick formatter that marks thousands."""
    return FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:,.1f}")
