"""The YAML of recipes: numbers as in YAML 1.2, unique keys, and bounds on depth and size.

PyYAML builds a document by recursion in C, without a bound, so bounds are checked on the events before it is built.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

MAX_LENGTH = 1 << 20
"""Longest recipe [characters]."""
MAX_DEPTH = 50
"""Sections and lists within each other."""
MAX_VALUES = 100_000
"""Most keys and values, with those that aliases repeat."""
MAX_DIGITS = 200
"""Longest number or time, as it is written [characters]. PyYAML takes quadratic time for one with colons."""
TAGS = "tag:yaml.org,2002:"
TEXT_TAG = f"{TAGS}str"
NOT_OF_ITS_TYPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What PyYAML raises for a value that its type does not have, such as the month 99."""


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C loader is ten times as fast
    """YAML 1.1 as in PyYAML, except that `3e-4` is a number, as in YAML 1.2."""


class YamlDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what `YamlLoader` reads: a text that looks like one of its numbers is quoted."""


def check_bounds(text: str) -> None:
    """Check depth and size of YAML text, before anything is built of it.

    Raises:
        YAMLError: it is deeper or larger than any recipe, or is not YAML.
    """
    values, sizes, open_nodes = 0, dict[str | None, int](), list[tuple[str | None, int]]()
    for event in yaml.parse(text, YamlLoader):
        if isinstance(event, yaml.ScalarEvent):
            values += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.AliasEvent):
            values += sizes.get(event.anchor, 1)
        if len(open_nodes) > MAX_DEPTH or values > MAX_VALUES:
            problem = f"more than {MAX_DEPTH} levels or {MAX_VALUES:,} values, which no recipe has"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def compose(text: str) -> yaml.Node | None:
    """The nodes of YAML text; None if it is empty.

    Raises:
        YAMLError: it is not YAML, or beyond the bounds.
    """
    try:
        check_bounds(text)
        return yaml.compose(text, YamlLoader)
    except UnicodeEncodeError as error:
        raise yaml.MarkedYAMLError(problem="the text holds half of a surrogate pair, which is no character") from error


def construct(node: yaml.Node) -> Any:
    """The value of a node.

    Raises:
        YAMLError: a mapping has a key twice, or one that is not a string, or a type has no such value.
    """
    return YamlLoader("").construct_document(node)


def load(text: str) -> Any:
    """The value of YAML text; None if it is empty.

    Raises:
        YAMLError: it is not YAML, or beyond the bounds.
    """
    node = compose(text)
    return construct(node) if node else None


def dump(value: Any) -> str:
    """`value` as YAML: mappings keep their order."""
    return yaml.dump(value, Dumper=YamlDumper, sort_keys=False)


def _bounded(build: Callable[[YamlLoader, yaml.ScalarNode], Any]) -> Callable[[YamlLoader, yaml.ScalarNode], Any]:
    """A constructor of values that are short, as text, and some of which its type does not have."""

    def construct_value(loader: YamlLoader, node: yaml.ScalarNode) -> Any:
        problem = f"a number or time of more than {MAX_DIGITS} characters, which no recipe has"
        if len(node.value) <= MAX_DIGITS:
            try:
                return build(loader, node)
            except NOT_OF_ITS_TYPE as error:
                problem = f"not a value of the type {node.tag.rpartition(':')[2]}: {error}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    return construct_value


def _mapping(loader: YamlLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping whose keys are unique strings. YAML itself would silently keep the last of two equal keys."""
    keys: set[str] = set()
    for key, _ in node.value:
        text = key.value if isinstance(key, yaml.ScalarNode) else "that is a list or section"
        if key.tag != TEXT_TAG or text in keys:
            problem = "occurs twice" if text in keys else "is not a string"
            raise yaml.constructor.ConstructorError(None, None, f"key {text} {problem}", key.start_mark)
        keys.add(text)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


YamlLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _type in ("bool", "int", "float", "binary", "timestamp"):
    YamlLoader.add_constructor(f"{TAGS}{_type}", _bounded(YamlLoader.yaml_constructors[f"{TAGS}{_type}"]))
for _class in (YamlLoader, YamlDumper):
    _class.add_implicit_resolver(
        f"{TAGS}float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
