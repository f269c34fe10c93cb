"""The optimizers. Each is one `OptimizerSpec` in the table `OPTIMIZERS`, by the `train.optimizer.kind` of the recipe.

To add one, describe it by an `OptimizerSpec`, and register that as an entry point of the group `headway.optimizers`;
docs/training.md, "Add an optimizer", has a whole example.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from headway.plugins import Kinds
from headway.recipe import AdamW, Recipe


@dataclass(frozen=True)
class OptimizerSpec:
    """One kind of optimizer: how to build it, and the state that it keeps for each parameter."""

    build: Callable[[Recipe, torch.nn.Module, torch.device], torch.optim.Optimizer]
    """The optimizer of a sharded model. The learning rate of its groups is set before each step."""
    slots: tuple[str, ...]
    """Keys of `optimizer.state[parameter]` whose tensors are sharded like the parameter. They begin at 0, and a
    checkpoint holds them as `optimizer.<slot>.<parameter>`."""
    counters: tuple[str, ...] = ()
    """Keys of scalars that count the steps. A checkpoint holds only the number of updates."""


class ShardedAdamW(torch.optim.AdamW):
    """AdamW on this rank's local shards. AdamW is elementwise, so the ranks need not communicate.

    On DTensors torch would first derive the sharding of each operation, once per process, which takes half as long as a
    step of a small model.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[torch.Tensor]) -> Any:
        """Collect parameters, gradients and moments into `lists` as torch does, each as its local shard."""
        result = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
        return result


def build_adamw(recipe: Recipe, model: torch.nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    settings = recipe.train.optimizer
    assert isinstance(settings, AdamW)
    # torch's fused CPU kernel rounds the last few elements of a tensor differently, so bits would depend on where a
    # shard ends. Its foreach kernels, and the fused kernel of a GPU, treat all elements alike.
    fused = device.type == "cuda" or recipe.train.determinism == "fast"
    return ShardedAdamW(
        decay_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.eps,
        fused=fused,
        foreach=not fused,
    )


OPTIMIZERS: Kinds[OptimizerSpec] = Kinds(
    "headway.optimizers",
    OptimizerSpec,
    {"adamw": OptimizerSpec(build_adamw, slots=("exp_avg", "exp_avg_sq"), counters=("step",))},
)
"""The optimizers, by kind."""


def build_optimizer(recipe: Recipe, model: torch.nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that the recipe names; its state is allocated at once."""
    spec = OPTIMIZERS[recipe.train.optimizer.kind]
    optimizer = spec.build(recipe, model, device)
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            **{counter: torch.zeros((), dtype=torch.float32, device=device) for counter in spec.counters},
            **{slot: torch.zeros_like(parameter) for slot in spec.slots},
        }
    return optimizer


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices with `weight_decay`, all others without."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
