"""Checks and measures Headway on one GPU, offline, in at most eight minutes.

    python -m bench.gpu [--only PART,PART] [--minutes N] [--json FILE] [--rehearse]

For a machine without Headway's dependencies: run `make gpu-kit` on a machine with a network, copy the checkout with
out/gpu-kit, then run

    python3 -m pip install --no-index --no-deps --target /tmp/site out/gpu-kit/*.whl
    PYTHONPATH=platform:/tmp/site python3 -m bench.gpu --json gpu.json

Each part runs in its own process with a time limit, the most valuable part first. Each result is printed on standard
error and added to the file at once, so an interrupted run keeps its results; the table comes last:

    numbers      attention and loss against double precision; refused operations; repeatability
    bits         repeated, killed, resumed and compiled runs, one and two ranks: equal SHA-256 of the parameters
    utilisation  MFU of 350M, 1.3B and 8B shapes against a plain loop; measured and predicted memory
    saving       stall and speed of saves, restore to the device
    kernels      the ten slowest kernels, and the share of idle time

`--rehearse` runs all parts on a CPU at a tiny size.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

LIMITS = {"numbers": 60.0, "bits": 120.0, "utilisation": 300.0, "saving": 60.0, "kernels": 60.0}
"""Time limit of each part, in their order [s]."""
POLL_SECONDS = 0.5
TABLE_WIDTH = 220
"""Width of the table if standard output is not a terminal [columns]."""
PRELOAD = ["headway.train.preload", "headway.train.trial", "bench.card.saving"]
Row = dict[str, Any]


def run_part(part: str, rehearse: bool, rows: Any) -> None:  # noqa: FBT001 (passed to a process)
    """Measure a part in this process; puts each row into `rows`, and None at the end."""
    os.setsid()  # a process group that can be killed as a whole
    from bench.card.device import Device

    try:
        device = Device(rehearse=rehearse)
        rows.put({"device": device.name})
        for row in getattr(importlib.import_module(f"bench.card.{part}"), part)(device):
            rows.put(row)
    except Exception:  # the other parts run in any case
        rows.put({"name": "failed", "left_out": traceback.format_exc()[-1500:], "good": False})
    rows.put(None)


class Results:
    """All results so far, in a file."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.parts: dict[str, list[Row]] = {}
        self.about: Row = {"python": sys.version.split()[0]}

    def add(self, part: str, row: Row) -> None:
        """Add a row, and rewrite the file."""
        if "device" in row:
            self.about |= row
        else:
            self.parts.setdefault(part, []).append(row)
            print(f"{part:12} {as_line(row)}", file=sys.stderr, flush=True)
        if self.file:
            self.file.write_text(json.dumps({**self.about, "parts": self.parts}, indent=1), encoding="utf-8")

    def tables(self) -> Iterator[Table]:
        """One table per part."""
        for part, rows in self.parts.items():
            columns = [*dict.fromkeys(key for row in rows for key in row if key not in {"name", "good"})]
            table = Table("", *columns, "", title=f"{part}, {self.about.get('device', 'no device')}")
            for row in rows:
                table.add_row(row["name"], *(as_text(row.get(key, "")) for key in columns), verdict(row))
            yield table

    def conclusion(self) -> str:
        """The overall result, in a sentence."""
        if not self.good:
            return "some checks failed: see FAILED"
        cut = [f"{part}: {row['left_out']}" for part, rows in self.parts.items() for row in rows if "left_out" in row]
        return f"all completed checks hold; left out: {'; '.join(cut)}" if cut else "all checks hold"

    @property
    def good(self) -> bool:
        """Whether no check failed."""
        return all(row.get("good", True) for rows in self.parts.values() for row in rows)


def measure(part: str, seconds: float, results: Results, *, rehearse: bool) -> None:
    """Measure a part in its own process, for at most `seconds`; then kills its whole process group."""
    if seconds < 1:
        results.add(part, {"name": "all of it", "left_out": "no time remained"})
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    rows = context.Queue()
    process = context.Process(target=run_part, args=(part, rehearse, rows))
    process.start()
    follow(part, process, rows, results, seconds)
    process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()


def follow(part: str, process: Any, rows: Any, results: Results, seconds: float) -> None:
    """Collect the rows of a part until it ends, dies, or exceeds its limit."""
    end = time.monotonic() + seconds
    while True:
        try:
            row = rows.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if not process.is_alive():
                results.add(
                    part, {"name": "died", "left_out": f"the rest: exit code {process.exitcode}", "good": False}
                )
                return
            if time.monotonic() > end:
                results.add(part, {"name": "stopped", "left_out": f"the rest: the limit is {seconds:.0f} s"})
                return
            continue
        if row is None:
            return
        results.add(part, row)


def as_line(row: Row) -> str:
    """A row as a line."""
    figures = [f"{key}={as_text(value)}" for key, value in row.items() if key not in {"name", "good"}]
    return "  ".join([row["name"], *figures, verdict(row)]).rstrip()


def verdict(row: Row) -> str:
    """The result of a row's check, if it has one."""
    return {True: "ok", False: "FAILED", None: ""}[row.get("good")]


def as_text(value: Any) -> str:
    """A value, formatted for the table."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(LIMITS), help="comma-separated parts")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit of all parts")
    parser.add_argument("--json", type=Path, help="results file, rewritten after each result")
    parser.add_argument("--rehearse", action="store_true", help="run on a CPU, at a tiny size")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - LIMITS.keys():
        parser.error(f"unknown part {', '.join(sorted(unknown))}; parts: {', '.join(LIMITS)}")
    end = time.monotonic() + 60 * options.minutes
    results = Results(options.json)
    for part, limit in LIMITS.items():
        if part in options.only.split(","):
            began = time.monotonic()
            measure(part, min(limit, end - began), results, rehearse=options.rehearse)
            results.add(part, {"name": "duration", "seconds": round(time.monotonic() - began, 1)})
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    for table in results.tables():
        console.print(table)
    print(results.conclusion())
    sys.exit(0 if results.good else 1)


if __name__ == "__main__":
    main()
