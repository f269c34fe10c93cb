"""The script for a GPU, rehearsed on a CPU: whoever has a card for some minutes must not find it rotten."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from bench.gpu import LIMITS

ROOT = Path(__file__).parents[2]
SEAM_LINES = 60


MARK = "HEADWAY_REHEARSAL"
"""In the environment of a rehearsal and of all that it starts: the file that it writes."""


def rehearse(file: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run `bench.gpu --rehearse`; returns its end and the file that it wrote."""
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", "--json", str(file), *options]
    environment = {**os.environ, MARK: str(file)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_part_runs_to_its_end_and_nothing_promised_is_broken(tmp_path: Path) -> None:
    """All parts are there, whole, in their order; each row that promises something holds it."""
    done, document = rehearse(tmp_path / "gpu.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [*document["parts"]] == [*LIMITS]
    for part, rows in document["parts"].items():
        assert len(rows) > 2, part
        assert [row for row in rows if "left_out" in row] == []
    promised = [row for rows in document["parts"].values() for row in rows if "good" in row]
    assert len(promised) >= 25
    assert all(row["good"] for row in promised)
    assert "all checks hold" in done.stdout


@pytest.mark.slow
def test_a_part_that_is_cut_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The file has what was measured and says that the rest was left out; its trainings are ended with it."""
    file = tmp_path / "gpu.json"
    _, document = rehearse(file, "--only", "bits", "--minutes", "0.2")
    assert [row["left_out"] for row in document["parts"]["bits"] if "left_out" in row]
    left = [process for process in psutil.process_iter() if mark(process) == str(file)]
    gone, alive = psutil.wait_procs(left, timeout=30)
    assert alive == [], gone


def mark(process: psutil.Process) -> str | None:
    """The rehearsal that a process belongs to; None if it is gone, or of none."""
    with suppress(psutil.Error):
        return process.environ().get(MARK)
    return None


def test_the_seam_between_a_gpu_and_a_rehearsal_is_short() -> None:
    """What knows CUDA is at most 60 lines; elsewhere a rehearsal only chooses smaller sizes and fewer cases."""
    assert len((ROOT / "bench/card/device.py").read_text(encoding="utf-8").splitlines()) <= SEAM_LINES


def test_a_part_that_there_is_not_is_refused() -> None:
    """The error names the parts that there are."""
    command = [sys.executable, "-m", "bench.gpu", "--only", "bitts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown part bitts; parts: numbers, bits" in done.stderr
