"""The keys of `train.optimizer` for `kind: lion`. Imports no torch."""

from pydantic import PositiveFloat

from headway.recipe import Optimizer


class Lion(Optimizer):
    """Lion (Chen et al., 2023)."""

    momentum: PositiveFloat = 0.99
    interpolation: PositiveFloat = 0.9
    weight_decay: PositiveFloat = 0.1
