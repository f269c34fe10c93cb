"""The section `model`: the keys of each architecture.

To add one, see "Add an architecture" in docs/model.md.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from headway.plugins import Kinds
from headway.recipe.section import ADDED, ByKind, KindSection


class Model(KindSection):
    """The key that every architecture has."""

    kind: Annotated[str, Field(json_schema_extra=ADDED)] = "llama"
    """The architecture. It decides which other keys there are."""

    @property
    def needs_documents(self) -> bool:
        """Whether the model is told to which document each token belongs."""
        return False


class Llama(Model):
    """A Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    layers: PositiveInt
    width: PositiveInt
    """Width of the residual stream."""
    heads: PositiveInt
    kv_heads: PositiveInt
    """Number of key and value heads; a divisor of `heads`."""
    ffn_width: PositiveInt
    """Inner width of the SwiGLU feed-forward layer."""
    rope_theta: PositiveFloat = 10_000.0
    norm_eps: PositiveFloat = 1e-5
    tie_embeddings: bool = False
    """Use the embedding matrix as the output projection."""
    attention: Literal["causal", "document"] = "causal"
    """`document`: attention stays inside a document. `causal`: attention reaches back to the start of the block."""

    @property
    def needs_documents(self) -> bool:
        """Whether attention stays inside documents."""
        return self.attention == "document"

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")
        if (self.width // self.heads) % 2:
            raise ValueError(f"width / heads is {self.width // self.heads}; rotary positions need an even number")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        return self


MODEL_SETTINGS: Kinds[type[Model]] = Kinds("headway.architectures.settings", Model, {"llama": Llama})
AnyModel = Annotated[Model, ByKind(MODEL_SETTINGS, default="llama")]
