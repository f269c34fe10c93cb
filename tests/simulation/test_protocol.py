"""No interleaving of writers, readers, collectors, crashes and failing requests breaks a promise of the run store.

HEADWAY_SIMULATIONS says how many are played (2,000), HEADWAY_SIMULATION_SEED where they begin (0).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.interleaving import play
from tests.simulation.survey import survey

COUNT = int(os.environ.get("HEADWAY_SIMULATIONS", "2000"))
FIRST = int(os.environ.get("HEADWAY_SIMULATION_SEED", "0"))
ENOUGH = 2000
"""Interleavings that between them go through everything."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600 + COUNT // 20)
def test_no_interleaving_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the order and whatever fails; and all that can happen does happen somewhere."""
    found = survey(range(FIRST, FIRST + COUNT))
    with capsys.disabled():
        print(f"\n{found.interleavings} interleavings from seed {FIRST} in {found.seconds:.0f} s: {dict(found.counts)}")
    replay = "replay with: PYTHONPATH=platform python -m tests.simulation --seed"
    assert not found.violations, "; ".join(f"{said} ({replay} {seed})" for seed, said in found.violations.items())
    assert COUNT < ENOUGH or not found.missed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_goes_the_same_way_every_time(seed: int) -> None:
    """In this process and in another, with other hashes of strings."""
    first, again = play(seed, trace=True), play(seed, trace=True)
    assert first == again
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[:-1] == first.trace
    assert told.endswith(f"seed {seed}: every promise was kept\n")
