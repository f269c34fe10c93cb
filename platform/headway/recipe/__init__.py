"""The recipe: one YAML file that defines a whole run. It imports no part that reads it, and no torch."""

from headway.recipe.identity import differences, digest, schema, to_yaml
from headway.recipe.model_settings import Llama, Model
from headway.recipe.optimizer_settings import AdamW, Optimizer
from headway.recipe.parser import RecipeDocument, load, parse, read
from headway.recipe.schema import Checkpoint, Recipe, Source, Stage, Tokenizer

__all__ = [
    "AdamW",
    "Checkpoint",
    "Llama",
    "Model",
    "Optimizer",
    "Recipe",
    "RecipeDocument",
    "Source",
    "Stage",
    "Tokenizer",
    "differences",
    "digest",
    "load",
    "parse",
    "read",
    "schema",
    "to_yaml",
]
