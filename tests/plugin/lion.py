"""Lion (Chen et al., 2023): the sign of an interpolated momentum."""

import torch

from headway.recipe import Recipe
from headway.train.compute.optimizer import OptimizerSpec, decay_groups

from .lion_settings import Lion


class SignMomentum(torch.optim.Optimizer):
    """Lion on this rank's local shards."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (there is no closure)
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    slot = self.state[parameter]["momentum"]
                    weight, gradient, momentum = (each.to_local() for each in (parameter, parameter.grad, slot))
                    direction = momentum.lerp(gradient, 1 - group["interpolation"]).sign_()
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
                    momentum.lerp_(gradient, 1 - group["momentum"])


def build(recipe: Recipe, model: torch.nn.Module, _device: torch.device) -> torch.optim.Optimizer:
    """Lion with weight decay on matrices only."""
    settings = recipe.train.optimizer
    assert isinstance(settings, Lion)
    defaults = {"momentum": settings.momentum, "interpolation": settings.interpolation}
    return SignMomentum(decay_groups(model, settings.weight_decay), defaults)


LION = OptimizerSpec(build, slots=("momentum",))
