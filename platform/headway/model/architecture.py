"""What an architecture provides: the one object through which training and export know it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from headway.errors import UsageError
from headway.model.language_model import LanguageModel
from headway.model.recompute import Recompute
from headway.recipe import Model

Settings = TypeVar("Settings", bound=Model)
Settings_contra = TypeVar("Settings_contra", bound=Model, contravariant=True)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one token, forward and backward."""

    blocks: int
    """Matrices of the blocks."""
    head: int
    """Output projection."""
    attention: int
    """Scores and weighted values, the causal half."""

    @property
    def total(self) -> int:
        """All floating-point operations per token."""
        return self.blocks + self.head + self.attention


class SavedElements(Protocol[Settings_contra]):
    """The elements per token that one block saves for the backward pass."""

    def __call__(self, model: Settings_contra, recompute: Recompute, *, compiled: bool, half: bool) -> int:
        """`compiled`: the block is compiled. `half`: the forward pass is in bf16."""


@dataclass(frozen=True)
class HuggingFaceFormat(Generic[Settings]):
    """The format in which transformers and vLLM load the model."""

    name: Callable[[str], str]
    """Name of a parameter there."""
    configuration: Callable[[Settings, int, int, int, str], dict[str, Any]]
    """The content of config.json; takes the settings, the vocabulary [tokens], the block length [tokens], the
    end-of-document token, and the dtype."""


@dataclass(frozen=True)
class Architecture(Generic[Settings]):
    """One architecture. `Settings` is the class of its section in the recipe."""

    build: Callable[[Settings, int, int], LanguageModel]
    """The module; takes the settings, the vocabulary [tokens], and how many tokens have logits at a time."""
    flops: Callable[[Settings, int, int], Flops] | None = None
    """Operations per token; takes the settings, the vocabulary, and the sequence length [tokens]."""
    saved_elements: SavedElements[Settings] | None = None
    """For the estimate of memory; None if there is no estimate."""
    huggingface: HuggingFaceFormat[Settings] | None = None
    """None if the model cannot be exported."""

    def on_meta(self, settings: Settings, vocabulary: int, loss_chunk_tokens: int = 1) -> LanguageModel:
        """The module on the meta device: names and shapes, without memory.

        Raises:
            UsageError: it has buffers, which no checkpoint would hold.
        """
        with torch.device("meta"):
            model = self.build(settings, vocabulary, loss_chunk_tokens)
        if buffers := [name for name, _ in model.named_buffers()]:
            raise UsageError(f"a model must not have buffers, and {type(model).__name__} has {', '.join(buffers)}")
        return model

    def parameter_count(self, settings: Settings, vocabulary: int) -> int:
        """Number of parameters; tied embedding and head count once."""
        return sum(parameter.numel() for parameter in self.on_meta(settings, vocabulary).parameters())
