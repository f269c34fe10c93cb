"""The recipe: one YAML file that says a whole run. Everything above reads it; it knows nobody."""

from headway.recipe.document import Document, load, parse, read
from headway.recipe.identity import differences, digest, schema, to_yaml
from headway.recipe.schema import Checkpoint, Model, Recipe, Source, Stage, Tokenizer

__all__ = [
    "Checkpoint",
    "Document",
    "Model",
    "Recipe",
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
