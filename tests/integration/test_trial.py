"""What cannot work on this machine is found before the run is claimed."""

from pathlib import Path

import pytest

from tests.integration.training import Place


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Processes that are started find the faults of `planted/`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "planted"), prepend=":")
    return monkeypatch


@pytest.mark.slow
def test_an_operation_without_a_deterministic_kernel_is_refused_by_name(
    place: Place, planted: pytest.MonkeyPatch
) -> None:
    """With determinism: bitwise the launch ends with 2, names the operation, and claims nothing; fast trains on."""
    planted.setenv("HEADWAY_PLANT", "put")
    refused = place.train("bitwise", cold=True)
    assert refused.process.returncode == 2
    reason = refused.outcome()["reason"]
    assert "put_ has no deterministic kernel on cpu" in reason
    assert "use determinism: fast" in reason
    assert not place.history("bitwise").attempts
    assert place.train("fast", "train.determinism=fast", "train.tokens=2048", cold=True).process.returncode == 0


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_refused_with_what_would(place: Place, planted: pytest.MonkeyPatch) -> None:
    """The launch ends with 2, says what was foreseen and what else fits, and claims nothing."""
    planted.setenv("HEADWAY_PLANT", "memory")
    refused = place.train("run", ranks=2, cold=True)
    assert refused.process.returncode == 2
    reason = refused.outcome()["reason"]
    assert "GiB were estimated for train.micro_batch_tokens=64" in reason
    assert "what would fit, most memory first: train.micro_batch_tokens=32 " in reason
    assert not place.history("run").attempts
