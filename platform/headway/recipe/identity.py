"""The identity of a recipe: a digest over all keys except those that only decide where the run runs."""

import hashlib
import json
from typing import Any

import yaml
from pydantic import BaseModel

from headway.recipe.schema import Recipe


def meaning(section: BaseModel) -> dict[str, Any]:
    """The part of a recipe that decides the trained parameters, as plain data with every default written out."""
    keys: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("x-meaning") is False:
            continue
        value = getattr(section, name)
        keys[name] = meaning(value) if isinstance(value, BaseModel) else _plain(value)
    return keys


def digest(recipe: Recipe) -> str:
    """SHA-256, in hex, of a recipe's meaning."""
    canonical = json.dumps(meaning(recipe), sort_keys=True, separators=(",", ":"))
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
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return meaning(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{path}.{key}" if path else key)]
    return [(path, tree)]
