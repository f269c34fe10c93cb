"""The simulation is worth its time only if it finds bugs: each of these is planted, and found."""

import pytest

from tests.simulation.interleaving import play
from tests.simulation.mutants import MUTANTS, Mutant

BOUND = 3000
"""Seeds that a planted bug may take to be found; the code as it is passes the first 2,000 in `test_protocol`."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    """Some interleaving shows it, and the same interleaving is sound without it."""
    with mutant.planted():
        broken = next((outcome for outcome in map(play, range(BOUND)) if outcome.violation), None)
    assert broken is not None, f"{BOUND} interleavings do not tell the difference"
    print(f"{mutant.name}: found after {broken.seed + 1} seeds: {broken.violation}")
    assert play(broken.seed).violation is None
