"""Bounds of grammars: how large a schema, an expression, an EBNF grammar or a list of choices may be.

The libraries behind vLLM unroll what a grammar repeats, and the replica calls them in its event loop before it passes a
request to the engine. So every number by which something is repeated counts as often as it says, and text, values and
ranges of numbers count too. `engine/grammar_trial.py` bounds what a grammar of this size still costs to compile.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic_core import from_json

from headway.serve.bounds.document_bounds import document_problem
from headway.serve.bounds.field_bounds import Bound

MAX_CHARACTERS = 2**16
"""Characters of a grammar: keys, texts and expressions."""
MAX_VALUES = 2**13
"""JSON values of a grammar: choices, members of an enumeration, properties."""
MAX_TOOL_CHARACTERS = 2**18
"""Characters of all tools: descriptions are long, and no library looks at them."""
MAX_TOOL_VALUES = 2**14
"""JSON values of all tools."""
MAX_REPETITIONS = 20_000
"""Repetitions of all parts of a grammar. A library of vLLM takes 1 KiB and 2 us for each."""
COUNTS = {"minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains", "min", "max"}
"""Keywords of schemas and structural tags whose value repeats something."""
LENGTHS = {"minLength", "maxLength"}
"""Keywords that repeat a character."""
RANGES = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
"""Keywords that become an expression of as many digits as their value has."""
EXPRESSIONS = {"regex", "pattern", "grammar", "whitespace_pattern"}
"""Keys of expressions and of grammars in EBNF or Lark."""
CHARACTERS_PER_REPETITION = 10
"""Repeated characters that cost as much as any other repetition."""
DIGIT_REPETITIONS = 10
"""Repetitions that a digit of a range costs as much as."""
PROPERTY_REPETITIONS = 4
"""Repetitions that a property costs as much as for each of the least or most properties of its object."""
JSON_TEXTS = ("json", "structural_tag")
"""Fields of `structured_outputs` whose value may be JSON as a text."""
QUANTIFIER = re.compile(r"\{\s*+(\d*+)\s*+(?:,\s*+(\d*+)\s*+)?+\}|~\s*+(\d++)(?:\s*+\.\.\s*+(\d++))?+")
"""A number of repetitions in an expression, in EBNF (`{2,5}`) or in Lark (`~2..5`); it never goes back in the text."""
MAX_DIGITS = 18
"""Digits of such a number; one of more is larger than any bound."""


@dataclass(frozen=True)
class Grammar:
    """A value that holds a grammar, or several."""

    characters: int = MAX_CHARACTERS
    """Most characters."""
    values: int = MAX_VALUES
    """Most JSON values."""

    def __call__(self, value: Any) -> str | None:
        """Accept a grammar that is small enough."""
        characters, repetitions = 0, 0.0
        for values, (key, item) in enumerate(_items(value), start=1):
            characters += len(key) + (len(item) if isinstance(item, str) else 0)
            if characters > self.characters:
                return f"is a grammar of more than {self.characters} characters"
            if values > self.values:
                return f"is a grammar of more than {self.values} values"
            repetitions += _repetitions(key, item)
            if repetitions > MAX_REPETITIONS:
                return f"is a grammar that repeats its parts more than {MAX_REPETITIONS} times in all"
        return None


def structured_outputs(value: Any) -> str | None:
    """Accept grammars of vLLM's own field, some of which may be JSON as a text."""
    if not isinstance(value, dict):
        return "must be an object"
    parsed = dict(value)
    for name in JSON_TEXTS:
        if isinstance(text := value.get(name), str):
            if len(text) > MAX_CHARACTERS:
                return f"is a grammar of more than {MAX_CHARACTERS} characters"
            try:
                parsed[name] = from_json(text, allow_inf_nan=False)
            except ValueError:
                return f"has a text in {name} that is not valid JSON"
            if problem := document_problem(parsed[name]):
                return f"has a text in {name} that {problem}"
    return Grammar()(parsed)


GRAMMAR_BOUNDS: dict[str, Bound] = {
    "structured_outputs": structured_outputs,
    "response_format": Grammar(),
    "text": Grammar(),
    "tools": Grammar(MAX_TOOL_CHARACTERS, MAX_TOOL_VALUES),
}
"""Fields that hold grammars, in any of the APIs."""


def _items(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a JSON value, itself included, with its key; an entry of a list has its list's key."""
    pending = [(key, value)]
    while pending:
        name, item = pending.pop()
        yield name, item
        if isinstance(item, dict):
            pending.extend(item.items())
        elif isinstance(item, list):
            pending.extend((name, each) for each in item)


def _repetitions(key: str, item: Any) -> float:
    """How many repetitions a value costs as much as, beside those in it."""
    if isinstance(item, str):
        return sum(map(_quantity, QUANTIFIER.finditer(item))) if key in EXPRESSIONS else 0
    if isinstance(item, dict):
        patterns = item.get("patternProperties")
        names = patterns if isinstance(patterns, dict) else ()
        return _property_repetitions(item) + sum(_repetitions("pattern", name) for name in names)
    if isinstance(item, bool) or not isinstance(item, (int, float)):
        return 0
    if key in COUNTS:
        return max(0, item)
    if key in LENGTHS:
        return max(0, item) / CHARACTERS_PER_REPETITION
    return DIGIT_REPETITIONS * len(format(Decimal(repr(item)), "f")) if key in RANGES else 0


def _property_repetitions(schema: dict[str, Any]) -> float:
    """What limits on the number of properties cost: each property is tried after each number of others."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return 0
    limits = [schema[name] for name in ("minProperties", "maxProperties") if type(schema.get(name)) in (int, float)]
    return PROPERTY_REPETITIONS * len(properties) * min(len(properties), max(limits, default=0))


def _quantity(quantifier: re.Match[str]) -> int:
    """The largest number of a quantifier."""
    numbers = [digits for digits in quantifier.groups() if digits]
    if any(len(digits) > MAX_DIGITS for digits in numbers):
        return MAX_REPETITIONS + 1
    return max(map(int, numbers), default=0)
