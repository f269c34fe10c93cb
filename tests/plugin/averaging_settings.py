"""The keys of `model` for `kind: averaging`. Imports no torch."""

from pydantic import PositiveInt

from headway.recipe import Model


class Averaging(Model):
    """A decoder whose tokens see the mean of all earlier ones instead of attending to them."""

    layers: PositiveInt
    width: PositiveInt
    inner_width: PositiveInt
