"""The section `train.optimizer`: the keys of each kind of optimizer.

To add a kind, see "Add an optimizer" in docs/training.md.
"""

from typing import Annotated

from pydantic import Field, PositiveFloat

from headway.plugins import Kinds
from headway.recipe.section import ADDED, ByKind, KindSection


class Optimizer(KindSection):
    """The keys that every optimizer has."""

    kind: Annotated[str, Field(json_schema_extra=ADDED)] = "adamw"
    """The algorithm. It decides which other keys there are."""
    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate."""
    clip_norm: PositiveFloat = 1.0
    """Maximum L2 norm of the whole gradient."""


class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter, 2019)."""

    betas: Annotated[list[Annotated[float, Field(ge=0.0, lt=1.0)]], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    eps: PositiveFloat = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight decay of matrices; other parameters have none."""


OPTIMIZER_SETTINGS: Kinds[type[Optimizer]] = Kinds("headway.optimizers.settings", Optimizer, {"adamw": AdamW})
AnyOptimizer = Annotated[Optimizer, ByKind(OPTIMIZER_SETTINGS, default="adamw")]
