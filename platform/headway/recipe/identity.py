"""The identity of a recipe: a digest over all keys except those that only decide where the run runs.

A key that was added when runs were stored already is left out of it while it has its default.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from headway.recipe import yaml_text
from headway.recipe.schema import Recipe
from headway.recipe.section import ADDED, WHERE


def meaning(section: BaseModel, *, added: bool = True) -> dict[str, Any]:
    """The part of a recipe that decides the trained parameters, as plain data with every default written out.

    Without `added`, keys marked `ADDED` are left out while they have their default.
    """
    keys: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value, extra = getattr(section, name), field.json_schema_extra
        if extra == WHERE or (extra == ADDED and not added and value == field.get_default(call_default_factory=True)):
            continue
        keys[name] = _plain(value, added=added)
    return keys


def digest(recipe: Recipe) -> str:
    """SHA-256, in hex, of a recipe's meaning."""
    canonical = json.dumps(meaning(recipe, added=False), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The keys in which two recipes differ in meaning, as `key: old -> new`."""
    before, after = (dict(_leaves(meaning(recipe))) for recipe in (old, new))
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML."""
    return yaml_text.dump(recipe.model_dump(mode="json"))


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _plain(value: Any, *, added: bool) -> Any:
    if isinstance(value, BaseModel):
        return meaning(value, added=added)
    if isinstance(value, dict):
        return {key: _plain(item, added=added) for key, item in value.items()}
    return [_plain(item, added=added) for item in value] if isinstance(value, list) else value


def _leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{path}.{key}" if path else key)]
    return [(path, tree)]
