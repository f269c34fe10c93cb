"""The picture of a run: what it learnt, how fast, where it was stopped, and where its time went."""

from collections.abc import Sequence
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

from headway.reports.curve import Curve
from headway.reports.status import RunStatus
from headway.reports.time_accounting import TimeAccounting
from headway.telemetry.phases import PHASES

FORMATS = (".png", ".pdf", ".svg")
INK, PALE = "#1b1f24", "#9aa4b0"
BLUE, ORANGE, RED = "#2166ac", "#f08c00", "#c92a2a"
AGAIN = "#fbe3e3"
STOPS: dict[str, tuple[str, Any]] = {
    "preempted": (ORANGE, (0, (4, 2))),
    "killed": (RED, "solid"),
    "failed": ("#7b2d8e", (0, (1, 1.5))),
    "rolled back": ("#087f5b", (0, (6, 2, 1, 2))),
}
"""Colour and dashes of each way in which an attempt stops short."""
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
MOST_LABELS = 24
"""Attempts that are each labelled; of more, some."""


def draw(target: Path, standing: RunStatus, curve: Curve, account: TimeAccounting) -> None:
    """Write the picture: four panels below each other, the upper three over tokens."""
    attempts = len({line.attempt for line in account.lines})
    below = min(3.4, 0.55 + 0.24 * max(2, attempts))
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(7.2, 6.4 + below), layout="constrained")
        grid = drawn.add_gridspec(4, 1, height_ratios=[2.6, 1.1, 1.5, below])
        loss = drawn.add_subplot(grid[0])
        rate, speed = drawn.add_subplot(grid[1], sharex=loss), drawn.add_subplot(grid[2], sharex=loss)
        _losses(loss, curve)
        _rates(rate, curve)
        _speeds(speed, curve)
        _stops((loss, rate, speed), standing, curve)
        loss.legend(handles=_legend(standing, curve), loc="lower right", bbox_to_anchor=(1.01, 1.01), ncols=7)
        for upper in (loss, rate):
            upper.tick_params(labelbottom=False)
        speed.set_xlabel("tokens")
        speed.xaxis.set_major_formatter(_thousands())
        speed.set_xlim(0, max(curve.points[-1].tokens, standing.tokens) * 1.01)
        _time(drawn.add_subplot(grid[3]), account)
        booked = [Patch(color=PHASE_COLOURS[phase], label=phase) for phase in PHASES if account.phases[phase]]
        drawn.legend(handles=booked, loc="outside lower center", ncols=len(PHASES), handlelength=1)
        drawn.suptitle(_title(standing), x=0.01, ha="left", fontsize=10.5, color=INK)
        drawn.savefig(target)


def _title(standing: RunStatus) -> str:
    of = f" of {standing.budget:,}" if standing.budget else ""
    number = len(standing.attempts)
    attempts = f"{number} attempt" + ("s" if number != 1 else "")
    return f"{standing.run}: {standing.state}, {standing.tokens:,}{of} tokens in {attempts}"


def _losses(axes: Axes, curve: Curve) -> None:
    axes.plot([p.tokens for p in curve.points], [p.loss for p in curve.points], color=BLUE, linewidth=1.1, zorder=3)
    if curve.held_out:
        tokens = sorted(curve.held_out)
        axes.plot(
            tokens, [curve.held_out[t] for t in tokens], "o", color=INK, markersize=4, markeredgecolor="white", zorder=4
        )
    axes.set_title("Loss")
    axes.set_ylabel("nats per token")


def _rates(axes: Axes, curve: Curve) -> None:
    axes.plot([p.tokens for p in curve.points], [p.learning_rate for p in curve.points], color=BLUE, linewidth=1.1)
    axes.set_title("Learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _speeds(axes: Axes, curve: Curve) -> None:
    """Each batch as it was, and the median of those around it."""
    tokens, speeds = [p.tokens for p in curve.points], [p.tokens_per_second for p in curve.points]
    axes.plot(tokens, speeds, color=PALE, linewidth=0.7)
    axes.plot(tokens, _smooth(speeds, max(2, len(speeds) // 60)), color=BLUE, linewidth=1.3)
    axes.set_title("Throughput")
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_thousands())


def _smooth(values: Sequence[float], reach: int) -> list[float]:
    """The running median over `reach` neighbours on each side."""
    return [median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]


def _stops(panels: Sequence[Axes], standing: RunStatus, curve: Curve) -> None:
    """Mark where attempts stopped short, and shade what had to be trained again."""
    top = panels[0].get_xaxis_transform()
    stopped = [attempt for attempt in standing.attempts if attempt.outcome in STOPS]
    width = 1.0 if len(stopped) <= MOST_LABELS else 0.5
    for attempt in stopped:
        colour, dashes = STOPS[attempt.outcome]
        at = curve.reached.get(attempt.number, attempt.committed)
        for axes in panels:
            axes.axvline(at, color=colour, linestyle=dashes, linewidth=width, zorder=2)
            if at > attempt.committed:
                axes.axvspan(attempt.committed, at, color=AGAIN, linewidth=0, zorder=0)
        panels[0].plot([at], [1], "v", color=colour, markersize=5 * width**0.5, transform=top, clip_on=False)


def _legend(standing: RunStatus, curve: Curve) -> list[Artist]:
    """What the lines over tokens mean: those that there are."""
    shown: list[Artist] = [Line2D([], [], color=BLUE, linewidth=1.1, label="training")]
    if curve.held_out:
        shown.append(Line2D([], [], color=INK, marker="o", linestyle="none", markersize=4, label="held-out"))
    for outcome, (colour, dashes) in STOPS.items():
        number = sum(attempt.outcome == outcome for attempt in standing.attempts)
        if number:
            label = outcome if number == 1 else f"{outcome} ×{number}"
            shown.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=1.0, label=label))
    if any(curve.reached.get(each.number, 0) > each.committed for each in standing.attempts if each.outcome in STOPS):
        shown.append(Patch(color=AGAIN, label="trained again"))
    return shown


def _time(axes: Axes, account: TimeAccounting) -> None:
    """The mean over the ranks of each attempt's phases, side by side; attempts below each other."""
    numbers = sorted({line.attempt for line in account.lines})
    longest = 0.0
    unit, name = _unit(max((line.wall for line in account.lines), default=1.0))
    for row, number in enumerate(numbers):
        lines = [line for line in account.lines if line.attempt == number]
        left = 0.0
        for phase in PHASES:
            width = sum(line.phases[phase] for line in lines) / len(lines) / unit
            if width:
                axes.barh(row, width, left=left, height=0.72, color=PHASE_COLOURS[phase], linewidth=0)
            left += width
        longest = max(longest, left)
        if len(numbers) <= MOST_LABELS:
            axes.text(left, row, f"  {lines[0].outcome}", va="center", ha="left", fontsize=7.5, color=INK)
    axes.set_title(f"Where the time went: goodput {account.goodput:.1%}")
    axes.set_xlabel(f"time of an attempt [{name}], mean over its ranks")
    axes.set_ylabel("attempt")
    every = -(-len(numbers) // MOST_LABELS) or 1
    axes.set_yticks(range(0, len(numbers), every), [str(number) for number in numbers[::every]])
    axes.set_ylim(max(len(numbers), 1) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.12 or 1)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(_thousands())


def _unit(longest: float) -> tuple[float, str]:
    """The unit that suits a length of time [s]: its seconds, and its name."""
    if longest < 600:
        return 1.0, "s"
    return (60.0, "min") if longest < 36_000 else (3600.0, "h")


def _thousands() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:,.1f}")
