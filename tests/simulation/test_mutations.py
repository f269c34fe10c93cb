"""The simulation finds each of a list of planted bugs."""

import pytest

from tests.simulation.interleaving import play
from tests.simulation.mutants import MUTANTS, Mutant

BOUND = 3000
"""Seeds within which a bug must be found. The unchanged code passes the first 2,000 in `test_protocol`."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    """Some interleaving violates an invariant with the bug and none without it."""
    with mutant.planted():
        broken = next((outcome for outcome in map(play, range(BOUND)) if outcome.violation), None)
    assert broken is not None, f"not found in {BOUND} interleavings"
    print(f"{mutant.name}: found after {broken.seed + 1} seeds: {broken.violation}")
    assert play(broken.seed).violation is None
