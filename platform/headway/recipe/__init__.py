"""The recipe: one YAML file that defines a whole run. It imports no other package."""

from headway.recipe.identity import differences, digest, schema, to_yaml
from headway.recipe.parser import RecipeDocument, load, parse, read
from headway.recipe.schema import Checkpoint, Model, Recipe, Source, Stage, Tokenizer

__all__ = [
    "Checkpoint",
    "Model",
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
