"""Parses YAML text to a `Recipe`. Errors name the line and the nearest known key."""

import copy
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from headway.errors import RecipeError, UnknownKindError
from headway.localfiles import local_path
from headway.plugins import nearest
from headway.recipe import yaml_text
from headway.recipe.schema import Recipe
from headway.recipe.section import UNKNOWN_KIND, ByKind

ERROR_TEXTS = {"missing": "missing key"}
WHOLE_TEXTS = {"missing", "value_error", UNKNOWN_KIND}
"""Types of errors whose text needs no value."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at `path`, with `key.path=value` overrides applied.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or is not a valid recipe.
    """
    return read(path).recipe(overrides)


def read(path: str | Path) -> "RecipeDocument":
    """Read the document at `path`; `-` is standard input.

    Raises:
        RecipeError: the file cannot be read, or is not YAML.
    """
    try:
        with nullcontext(sys.stdin) if str(path) == "-" else local_path(path).open(encoding="utf-8") as file:
            text = file.read(yaml_text.MAX_LENGTH + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(text) > yaml_text.MAX_LENGTH:
        raise RecipeError(f"{path}: is longer than {yaml_text.MAX_LENGTH:,} characters, which no recipe is")
    return RecipeDocument(text, origin=str(path))


def parse(text: str, *, origin: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Parse YAML text to a recipe; `origin` names it in errors."""
    return RecipeDocument(text, origin=origin).recipe(overrides)


class RecipeDocument:
    """The YAML text of a recipe, parsed once. It yields any number of recipes, each with its own overrides."""

    def __init__(self, text: str, *, origin: str = "recipe") -> None:
        """Parse YAML.

        Raises:
            RecipeError: the text is not YAML, or not a mapping of keys.
        """
        self.text, self.origin = text, origin
        try:
            self._node = yaml_text.compose(text)
            keys = yaml_text.construct(self._node) if self._node else None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = " ".join(str(getattr(error, "problem", error)).split())
            raise RecipeError(f"{origin}{line}: not YAML: {problem}") from error
        if not isinstance(keys, dict):
            raise RecipeError(f"{origin}: a recipe is a mapping of keys; this is {type(keys).__name__}")
        self._keys: dict[str, Any] = keys

    def recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe, with `key.path=value` overrides applied.

        Raises:
            RecipeError: the keys are not a valid recipe; UnknownKindError if no installed package has a kind in it.
        """
        keys = copy.deepcopy(self._keys) if overrides else self._keys
        overridden = {_override(keys, item) for item in overrides}
        try:
            return Recipe.model_validate_json(json.dumps(keys, default=str))
        except (TypeError, ValueError) as error:
            if isinstance(error, ValidationError):
                unknown_kind = any(problem["type"] == UNKNOWN_KIND for problem in error.errors())
                kind = UnknownKindError if unknown_kind else RecipeError
                raise kind("\n".join(self._explain(error, keys, overridden))) from error
            raise RecipeError(f"{self.origin}: not a valid recipe: {error}") from error

    def _explain(self, error: ValidationError, keys: dict[str, Any], overridden: set[str]) -> Iterable[str]:
        """A line for each problem with `keys`; `overridden` are the paths that overrides set."""
        for problem in error.errors(include_url=False):
            location = problem["loc"]
            key = ".".join(str(part) for part in location) or "recipe"
            from_override = any(
                each == key or each.startswith(f"{key}.") or key.startswith(f"{each}.") for each in overridden
            )
            place = f"override {key}" if from_override else f"{self.origin}:{_line(self._node, location)}: {key}"
            message = ERROR_TEXTS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            if problem["type"] == "extra_forbidden":
                message = _unknown_key(keys, location)
            elif problem["type"] not in WHOLE_TEXTS:
                message += f"; it is {problem['input']!r}"
            yield f"{place}: {message}"


def _override(document: dict[str, Any], item: str) -> str:
    """Apply one `key.path=value` override to `document`; returns the key path."""
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {item!r}: write key=value, for example train.tokens=1000000")
    names: Sequence[str] = key.split(".")
    if len(names) > yaml_text.MAX_DEPTH:
        raise RecipeError(f"override {item!r}: no key has more than {yaml_text.MAX_DEPTH} sections")
    target, (leaf, names) = document, _next_key(document, names)
    while names:
        child = target.setdefault(leaf, {})
        if not isinstance(child, dict):
            raise RecipeError(f"override {item!r}: {leaf} is not a section")
        target = child
        leaf, names = _next_key(target, names)
    try:
        target[leaf] = yaml_text.load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {item!r}: the value is not YAML") from error
    return key


def _next_key(section: dict[str, Any], names: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The key of a section that a path begins with, and the rest of the path. A source's name may have dots."""
    ends = range(len(names), 0, -1)
    end = next((end for end in ends if ".".join(names[:end]) in section), 1)
    return ".".join(names[:end]), names[end:]


def _line(node: yaml.Node | None, location: Sequence[int | str]) -> int:
    """The line, from 1, of the deepest part of `location` that exists in the document."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _unknown_key(keys: Any, location: Sequence[int | str]) -> str:
    """The message about the unknown key at `location` of the document `keys`: what to write instead."""
    section: Any = Recipe
    kind = ""
    for part in location[:-1]:
        keys = keys[part]
        field = section.model_fields.get(part) if hasattr(section, "model_fields") else None
        by_kind = next((each for each in field.metadata if isinstance(each, ByKind)), None) if field else None
        section = by_kind.section(keys) if by_kind else field.annotation if field else section
        kind = f" for kind {by_kind.kind(keys)}" if by_kind else ""
        inner = [argument for argument in getattr(section, "__args__", ()) if isinstance(argument, type)]
        section = next((argument for argument in inner if issubclass(argument, BaseModel)), section)
    known = sorted(section.model_fields) if hasattr(section, "model_fields") else []
    near = nearest(str(location[-1]), known)
    return f"unknown key{kind}; " + (f"did you mean {near}?" if near else f"known here: {', '.join(known)}")
