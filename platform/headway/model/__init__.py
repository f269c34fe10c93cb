"""Models. Each architecture is one `Architecture` in the table `ARCHITECTURES`, by the `model.kind` of the recipe.

To add one, subclass `LanguageModel` and `Block`, describe the class by an `Architecture`, and register that as an entry
point of the group `headway.architectures`; docs/model.md, "Add an architecture", has a whole example.
"""

from typing import Any

from headway.model.architecture import Architecture, Flops, HuggingFaceFormat
from headway.model.attention import Documents
from headway.model.initialization import initialize
from headway.model.language_model import Block, LanguageModel, Normal
from headway.model.llama import LLAMA
from headway.plugins import Kinds

ARCHITECTURES: Kinds[Architecture[Any]] = Kinds("headway.architectures", Architecture, {"llama": LLAMA})
"""The architectures, by kind."""

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Block",
    "Documents",
    "Flops",
    "HuggingFaceFormat",
    "LanguageModel",
    "Normal",
    "initialize",
]
