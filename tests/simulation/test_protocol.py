"""No interleaving of writers, readers, garbage collectors, crashes and failing requests violates an invariant.

HEADWAY_SIMULATIONS sets the number of interleavings (2,000), HEADWAY_SIMULATION_SEED the first seed (0).
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
"""Interleavings that together exercise everything."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600 + COUNT // 20)
def test_no_interleaving_violates_an_invariant(capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of event and fault also happens in some interleaving."""
    result = survey(range(FIRST, FIRST + COUNT))
    with capsys.disabled():
        print(f"\n{result.interleavings} interleavings from {FIRST} in {result.seconds:.0f} s: {dict(result.counts)}")
    replay = "replay with: PYTHONPATH=platform python -m tests.simulation --seed"
    assert not result.violations, "; ".join(f"{what} ({replay} {seed})" for seed, what in result.violations.items())
    assert COUNT < ENOUGH or not result.missed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_is_reproducible(seed: int) -> None:
    """In the same process and in another with another hash seed."""
    first, again = play(seed, trace=True), play(seed, trace=True)
    assert first == again
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[:-1] == first.trace
    assert output.endswith(f"seed {seed}: no violation\n")
