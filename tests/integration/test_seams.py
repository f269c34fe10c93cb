"""A second optimizer and a second architecture, added by an installed package, train like the built-in ones.

The package is `tests/plugin`. Its processes are started cold: the zygote has no package that was installed after it.
"""

import signal
from pathlib import Path

import numpy as np
import pytest

from headway import recipe as recipes
from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import UsageError
from headway.export import write_checkpoint
from tests.integration.training import Place
from tests.plugin.install import install

pytestmark = pytest.mark.slow

SECOND = (
    "train.optimizer={kind: lion, learning_rate: 1e-3}",
    "model={kind: averaging, layers: 2, width: 20, inner_width: 44}",
)


@pytest.fixture
def plugged(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where the package is installed."""
    install(tmp_path / "installed", monkeypatch)
    return place


def test_a_plugged_in_run_is_killed_and_resumed_to_equal_bits(plugged: Place) -> None:
    """Trained on one rank, or killed on two and resumed on one: equal state, bit for bit, and verified."""
    assert plugged.train("whole", *SECOND, ranks=1, cold=True).process.returncode == 0

    training = plugged.start("parts", *SECOND, ranks=2, cold=True)
    assert training.await_event("checkpoint.committed", 2), training.messages
    training.send(signal.SIGKILL, training.family())
    training.wait()
    resumed = plugged.train("parts", *SECOND, ranks=1, cold=True)
    assert resumed.process.returncode == 0, resumed.messages
    assert resumed.await_event("checkpoint.restored")

    whole, parts = (StoredCheckpoint(plugged.objects, plugged.history(run).commits[-1]) for run in ("whole", "parts"))
    tensors = parts.manifest.tensors.keys()
    assert {name.split(".")[1] for name in tensors if name.startswith("optimizer.")} == {"momentum"}
    assert [name for name in tensors if not np.array_equal(whole.read_tensor(name), parts.read_tensor(name))] == []
    assert plugged.findings("parts") == []
    assert parts.manifest.recipe == recipes.digest(recipes.load(plugged.recipe, SECOND))
    assert parts.manifest.environment.settings == {
        "package of model.kind": "headway-second 1.0",
        "package of train.optimizer.kind": "headway-second 1.0",
    }
    with pytest.raises(UsageError, match="averaging cannot be exported"):
        write_checkpoint(plugged.run("whole"), whole, plugged.store / "model")
