"""The keys of `train.optimizer.kind: lion` and `model.kind: averaging`. Imports no torch."""

from pydantic import PositiveFloat, PositiveInt

from headway.recipe import Model, Optimizer


class Lion(Optimizer):
    """Lion (Chen et al., 2023)."""

    momentum: PositiveFloat = 0.99
    interpolation: PositiveFloat = 0.9
    weight_decay: PositiveFloat = 0.1


class Averaging(Model):
    """A decoder whose tokens see the mean of all earlier ones instead of attending to them."""

    layers: PositiveInt
    width: PositiveInt
    inner_width: PositiveInt
