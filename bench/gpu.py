"""What Headway promises of a GPU, proved and measured on one card in at most eight minutes, offline.

    python -m bench.gpu [--only PART,PART] [--minutes N] [--json FILE] [--rehearse]

On a machine without Headway's dependencies: `make gpu-kit` where there is a network, copy the checkout there with
out/gpu-kit, then

    python3 -m pip install --no-index --no-deps --target /tmp/site out/gpu-kit/*.whl
    PYTHONPATH=platform:/tmp/site python3 -m bench.gpu --json gpu.json

Parts, the most valuable first; each is a process of its own with a time limit. Lines come on standard error as they are
measured, and the file is written anew after each, so that a run that is cut keeps what it has; the table comes last:

    numbers      attention and loss against double precision; what is refused; what repeats its bits
    bits         runs again, killed and resumed, compiled, on one and two ranks: equal SHA-256 of the parameters
    utilisation  MFU of 350M, 1.3B and 8B shapes beside a plain loop, and memory beside what was foreseen
    saving       stall, bytes a second, restore to the card
    kernels      the ten dearest kernels, and the share of gaps

`--rehearse` does all of it on a CPU at a tiny size.
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
"""Parts in their order, and how long each may take [s]."""
LOOK_SECONDS = 0.5
TABLE_WIDTH = 220
"""Columns of the table where it is no terminal that it goes to."""
PRELOAD = ["headway.train.preload", "headway.train.trial", "bench.card.saving"]
Row = dict[str, Any]


def work(part: str, rehearse: bool, rows: Any) -> None:  # noqa: FBT001 (passed to a process)
    """Measure a part; each row goes to `rows`, and None in the end."""
    os.setsid()  # so that all it starts can be ended with it
    from bench.card.device import Device

    try:
        device = Device(rehearse=rehearse)
        rows.put({"device": device.name})
        for row in getattr(importlib.import_module(f"bench.card.{part}"), part)(device):
            rows.put(row)
    except Exception:  # whatever it is, the other parts go on
        rows.put({"name": "broke off", "left_out": traceback.format_exc()[-1500:], "good": False})
    rows.put(None)


class Record:
    """What was measured so far, in a file."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.parts: dict[str, list[Row]] = {}
        self.about: Row = {"python": sys.version.split()[0]}

    def add(self, part: str, row: Row) -> None:
        """Keep a row, and write it all down."""
        if "device" in row:
            self.about |= row
        else:
            self.parts.setdefault(part, []).append(row)
            print(f"{part:12} {shown(row)}", file=sys.stderr, flush=True)
        if self.file:
            self.file.write_text(json.dumps({**self.about, "parts": self.parts}, indent=1), encoding="utf-8")

    def tables(self) -> Iterator[Table]:
        """All of it, a table for each part."""
        for part, rows in self.parts.items():
            columns = [*dict.fromkeys(key for row in rows for key in row if key not in {"name", "good"})]
            table = Table("", *columns, "", title=f"{part}, {self.about.get('device', 'no device')}")
            for row in rows:
                table.add_row(row["name"], *(form(row.get(key, "")) for key in columns), verdict(row))
            yield table

    def conclusion(self) -> str:
        """What it all comes to, in a sentence."""
        if not self.good:
            return "something that was promised does not hold: see BROKEN"
        cut = [f"{part}: {row['left_out']}" for part, rows in self.parts.items() for row in rows if "left_out" in row]
        return f"what was tried holds; left out: {'; '.join(cut)}" if cut else "all that was promised holds"

    @property
    def good(self) -> bool:
        """Whether nothing that was promised was broken."""
        return all(row.get("good", True) for rows in self.parts.values() for row in rows)


def measure(part: str, seconds: float, record: Record, *, rehearse: bool) -> None:
    """Measure a part in a process of its own, for at most `seconds`; what it started is ended with it."""
    if seconds < 1:
        record.add(part, {"name": "all of it", "left_out": "no time was left"})
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    rows = context.Queue()
    process = context.Process(target=work, args=(part, rehearse, rows))
    process.start()
    follow(part, process, rows, record, seconds)
    process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()


def follow(part: str, process: Any, rows: Any, record: Record, seconds: float) -> None:
    """Keep the rows of a part until it ends, dies, or has no time left."""
    end = time.monotonic() + seconds
    while True:
        try:
            row = rows.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            if not process.is_alive():
                record.add(part, {"name": "died", "left_out": f"the rest: exit code {process.exitcode}", "good": False})
                return
            if time.monotonic() > end:
                record.add(part, {"name": "cut", "left_out": f"the rest: the limit is {seconds:.0f} s"})
                return
            continue
        if row is None:
            return
        record.add(part, row)


def shown(row: Row) -> str:
    """A row as a line."""
    figures = [f"{key}={form(value)}" for key, value in row.items() if key not in {"name", "good"}]
    return "  ".join([row["name"], *figures, verdict(row)]).rstrip()


def verdict(row: Row) -> str:
    """Whether a row holds what it promises, if it promises anything."""
    return {True: "ok", False: "BROKEN", None: ""}[row.get("good")]


def form(value: Any) -> str:
    """A figure for people."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(LIMITS), help="parts, with commas between them")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--json", type=Path, help="a file that is rewritten with each line")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at a tiny size")
    wanted = parser.parse_args()
    if strangers := set(wanted.only.split(",")) - LIMITS.keys():
        parser.error(f"there is no part {', '.join(sorted(strangers))}; there are: {', '.join(LIMITS)}")
    end = time.monotonic() + 60 * wanted.minutes
    record = Record(wanted.json)
    for part, limit in LIMITS.items():
        if part in wanted.only.split(","):
            began = time.monotonic()
            measure(part, min(limit, end - began), record, rehearse=wanted.rehearse)
            record.add(part, {"name": "took", "seconds": round(time.monotonic() - began, 1)})
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    for table in record.tables():
        console.print(table)
    print(record.conclusion())
    sys.exit(0 if record.good else 1)


if __name__ == "__main__":
    main()
