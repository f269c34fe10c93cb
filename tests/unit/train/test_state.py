"""The tensors of a checkpoint: the parameters, and what the optimizer declares that it keeps for each."""

import math
from pathlib import Path

import pytest
import torch
from tests.plugin.install import install

from headway.errors import UsageError
from headway.model import ARCHITECTURES, initialize
from headway.recipe import parse
from headway.train.compute.optimizer import build_optimizer
from headway.train.compute.state import State

TEXT = """\
name: tiny
model: {layers: 1, width: 8, heads: 1, kv_heads: 1, ffn_width: 8}
data: {block_tokens: 64}
train: {tokens: 8192, batch_tokens: 1024, micro_batch_tokens: 128, optimizer: {kind: KIND}}
"""
CPU = torch.device("cpu")


def state(kind: str) -> State:
    """The state of a tiny model, not sharded, after one step."""
    recipe = parse(TEXT.replace("KIND", kind))
    model = ARCHITECTURES[recipe.model.kind].build(recipe.model, 32, 16)
    initialize(model, recipe.seed)
    return State(recipe, model, build_optimizer(recipe, model, CPU))


def step(state: State) -> None:
    """One step of the optimizer, with a gradient of ones."""
    for parameter in state.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    state.on_update(1.0)


def test_a_checkpoint_has_all_slots_of_the_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW has its two moments under the names of stored checkpoints, another optimizer its own."""
    install(tmp_path, monkeypatch)
    names = [*state("adamw").tensors()]
    assert names[-1] == "optimizer.exp_avg_sq.head.weight"
    assert [name.rpartition("norm")[0] for name in names if name.endswith(".norm.weight")] == [
        "model.", "optimizer.exp_avg.", "optimizer.exp_avg_sq."
    ]  # fmt: skip
    assert len(names) == 3 * len(state("adamw").parameters)
    other = [name for name in state("lion").tensors() if name.startswith("optimizer.")]
    assert other == [f"optimizer.momentum.{name}" for name in state("lion").parameters]


def test_reset_takes_back_every_step() -> None:
    """Slots are 0 and counters count from 0 again, so the next step gives the bits of the first."""
    trained = state("adamw")
    step(trained)
    first = {name: tensor.clone() for name, tensor in trained.tensors().items()}
    step(trained)
    trained.reset()
    assert trained.updates == 0
    step(trained)
    assert all(torch.equal(first[name], tensor) for name, tensor in trained.tensors().items())


def test_state_that_is_not_declared_is_refused() -> None:
    """What an optimizer keeps but does not declare would be lost on a resume; a save says so."""
    trained = state("adamw")
    parameter = trained.parameters["norm.weight"]
    trained.optimizer.state[parameter]["mystery"] = torch.zeros_like(parameter)
    with pytest.raises(UsageError, match=r"kind adamw keeps mystery of norm\.weight"):
        trained.tensors()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_found_in_any_tensor(value: float) -> None:
    """One element of one parameter or moment is enough; the largest finite values are finite."""
    trained = state("adamw")
    for name, tensor in trained.tensors().items():
        tensor.fill_(torch.finfo(tensor.dtype).max)
        assert trained.nonfinite() is None
        tensor.view(-1)[-1] = value
        assert trained.nonfinite() == name
        tensor.fill_(-torch.finfo(tensor.dtype).max)
