"""The members of an array: one run for each combination of values, named after its values.

An axis is `key=a,b,c` or a sweep file. A sweep file that maps keys to lists stands for the product of the lists; one
that lists mappings has one run for each mapping. Several axes are multiplied; the last one varies fastest.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from headway.errors import RecipeError, UsageError
from headway.recipe import Recipe, RecipeDocument, yaml_text
from headway.runs import keys

Choice = Mapping[str, str]
"""Values by recipe key, as written by the user."""
INVALID = re.compile(r"[^A-Za-z0-9._-]+")
QUOTES = " []{}\"'"
SUFFIXES = (".yaml", ".yml", ".json")
"""Suffixes of sweep files."""


@dataclass(frozen=True)
class SweepMember:
    """One run of an array, or the only run of a submission."""

    run: str
    overrides: list[str]
    """Overrides `key=value`: first those shared by all members."""
    recipe: Recipe


def sweep_members(
    document: RecipeDocument, shared: Sequence[str], arrays: Sequence[str], name: str | None = None
) -> list[SweepMember]:
    """The runs of a submission, each with a valid recipe. The default for `name` is the recipe's name.

    Raises:
        UsageError: an axis is malformed, two members are equal, or the name is not valid.
        RecipeError: a member's recipe is wrong; names the member and the key.
    """
    if name is not None and not keys.NAME.fullmatch(name):
        raise UsageError(f"--name {name}: {keys.NAME_RULE}")
    if not arrays:
        recipe = document.recipe(shared)
        return [SweepMember(name or recipe.name, list(shared), recipe)]
    choices = [
        {key: value for part in parts for key, value in part.items()}
        for parts in itertools.product(*(axis(each) for each in arrays))
    ]
    members: list[SweepMember] = []
    for index, (run, choice) in enumerate(zip(_suffixes(choices), choices, strict=True)):
        overrides = [f"{key}={value}" for key, value in choice.items()]
        try:
            recipe = document.recipe([*shared, *overrides])
        except RecipeError as error:
            raise RecipeError(f"member {index} of the array, {' '.join(overrides)}: {error}") from error
        members.append(SweepMember(run, [*shared, *overrides], recipe))
    base = name or members[0].recipe.name
    if max(len(base) + 1 + len(member.run) for member in members) > keys.MAX_NAME_LENGTH:
        return [SweepMember(f"{base}.{index}", each.overrides, each.recipe) for index, each in enumerate(members)]
    return [SweepMember(f"{base}.{each.run}", each.overrides, each.recipe) for each in members]


def axis(text: str) -> list[Choice]:
    """Parses one axis: `key=a,b,c`, or the path of a sweep file.

    Raises:
        UsageError: the axis has no values or cannot be read.
    """
    if "=" not in text or (text.endswith(SUFFIXES) and Path(text).is_file()):
        return _file(text)
    key, _, values = text.partition("=")
    try:
        choices: list[Choice] = [{key.strip(): value} for value in _values(f"[{values}]")]
    except yaml.YAMLError as error:
        raise UsageError(f"--array {text}: the values are not YAML; write key=a,b,c") from error
    if not key.strip() or not choices:
        raise UsageError(f"--array {text}: write key=a,b,c, for example seed=1,2,3")
    return choices


def _file(path: str) -> list[Choice]:
    """Reads a sweep file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(yaml_text.MAX_LENGTH + 1)
        if len(text) > yaml_text.MAX_LENGTH:
            raise UsageError(f"--array {path}: is longer than {yaml_text.MAX_LENGTH:,} characters, which no sweep is")
        node = yaml_text.compose(text)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"--array {path}: cannot be read as a sweep file ({why}); or write key=a,b,c") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--array {path}: not YAML: {' '.join(str(error).split())}") from error
    choices: list[Choice]
    if isinstance(node, yaml.MappingNode):
        lists = []
        for key, value in _leaves(node):
            if not isinstance(value, yaml.SequenceNode):
                raise UsageError(f"--array {path}:{value.start_mark.line + 1}: {key} must have a list of values")
            lists.append([{key: _source(text, item)} for item in value.value])
        choices = [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*lists)]
    elif isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.MappingNode) for item in node.value):
        choices = [{key: _source(text, value) for key, value in _leaves(item)} for item in node.value]
    else:
        raise UsageError(f"--array {path}: a sweep file is a list of mappings of keys to values, or keys with lists")
    if not choices or not all(choices):
        raise UsageError(f"--array {path}: is empty; write at least one key with a value")
    return choices


def _leaves(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Dotted keys and their values. A nested mapping is a section of the recipe."""
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _values(text: str) -> list[str]:
    """The items of a YAML list, as written."""
    node = yaml_text.compose(text)
    assert isinstance(node, yaml.SequenceNode)
    return [_source(text, item) for item in node.value]


def _source(text: str, node: yaml.Node) -> str:
    """The source text of a value, in one line."""
    if isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"}:
        return json.dumps(node.value)
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        return json.dumps(yaml_text.construct(node), default=str)
    return " ".join(text[node.start_mark.index : node.end_mark.index].split())


def _suffixes(choices: Sequence[Choice]) -> list[str]:
    """The suffix of each member's name: its values, or its index if the values do not make unique names.

    Raises:
        UsageError: two members are equal.
    """
    keys = dict.fromkeys(key for choice in choices for key in choice)
    leaves = [key.rpartition(".")[2] for key in keys]
    short = {
        key: leaf if leaves.count(leaf) == 1 else ".".join(key.split(".")[-2:])
        for key, leaf in zip(keys, leaves, strict=True)
    }
    first_index: dict[tuple[tuple[str, str], ...], int] = {}
    for index, choice in enumerate(choices):
        if (first := first_index.setdefault(tuple(sorted(choice.items())), index)) != index:
            same = " ".join(f"{key}={value}" for key, value in choice.items())
            raise UsageError(f"--array: members {first} and {index} are equal, {same}; all members must differ")
    suffixes = [
        ".".join(f"{short[key]}-{INVALID.sub('-', value.strip(QUOTES))}" for key, value in choice.items())
        for choice in choices
    ]
    if len(set(suffixes)) < len(suffixes):
        return [str(index) for index in range(len(choices))]
    return suffixes
