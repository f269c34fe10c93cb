"""Bounds of single fields: the type that a value must have, and how many or how long its parts may be.

A bound is a function that says what is wrong with a value, as the end of a sentence that begins with the field's name;
None if nothing is. Its first problem is enough: a client that sends ten thousand is told of one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Bound = Callable[[Any], str | None]
"""Says what is wrong with a value; None: nothing is."""
MAX_TOKEN_ID = 2**31 - 1
"""Largest token id that any engine can hold; the model's vocabulary is checked where the model is known."""


def integer(value: Any) -> str | None:
    """Accept an integer: `true` and `1.0` are none, and neither is `"1"`."""
    return None if type(value) is int else "must be an integer"


def number(value: Any) -> str | None:
    """Accept a number."""
    return None if type(value) in (int, float) else "must be a number"


def integer_or_flag(value: Any) -> str | None:
    """Accept an integer, `true` or `false`: `logprobs` is a count in one API and a flag in the other."""
    return None if isinstance(value, bool) else integer(value)


@dataclass(frozen=True)
class Text:
    """A text."""

    characters: int
    """Most characters."""

    def __call__(self, value: Any) -> str | None:
        """Accept a text that is short enough."""
        if not isinstance(value, str):
            return "must be a text"
        return None if len(value) <= self.characters else f"is longer than {self.characters} characters"


@dataclass(frozen=True)
class Texts:
    """A text, or a list of texts."""

    count: int
    """Most texts."""
    characters: int
    """Most characters of each."""

    def __call__(self, value: Any) -> str | None:
        """Accept few enough texts that are short enough."""
        texts = value if isinstance(value, list) else [value]
        if len(texts) > self.count:
            return f"has more than {self.count} entries"
        return next(filter(None, map(Text(self.characters), texts)), None)


@dataclass(frozen=True)
class TokenIds:
    """A list of token ids."""

    count: int
    """Most ids."""

    def __call__(self, value: Any) -> str | None:
        """Accept few enough ids, none of them negative."""
        if not isinstance(value, list):
            return "must be a list of token ids"
        if len(value) > self.count:
            return f"has more than {self.count} token ids"
        if value and set(map(type, value)) != {int}:
            return "must hold token ids only, which are integers"
        if value and not 0 <= min(value) <= max(value) <= MAX_TOKEN_ID:
            return f"holds a token id that is not between 0 and {MAX_TOKEN_ID}"
        return None


@dataclass(frozen=True)
class Prompts:
    """One prompt or a list of them; each is a text or a list of token ids."""

    count: int
    """Most prompts."""
    token_ids: int
    """Most token ids of all prompts."""

    def __call__(self, value: Any) -> str | None:
        """Accept few enough prompts that are of one kind."""
        if not isinstance(value, list):
            return None if isinstance(value, str) else "must be a text or a list"
        kinds = set(map(type, value))
        if kinds <= {int}:
            return TokenIds(self.token_ids)(value)
        if len(value) > self.count:
            return f"has more than {self.count} prompts"
        if kinds == {list}:
            return self._lists_problem(value)
        return None if kinds == {str} else "must hold either texts, token ids or lists of token ids"

    def _lists_problem(self, lists: list[list[Any]]) -> str | None:
        """What is wrong with prompts that are lists of token ids."""
        if sum(map(len, lists)) > self.token_ids:
            return f"has more than {self.token_ids} token ids"
        return next(filter(None, map(TokenIds(self.token_ids), lists)), None)


@dataclass(frozen=True)
class Biases:
    """An object from token ids, written as texts, to numbers."""

    count: int
    """Most entries."""

    def __call__(self, value: Any) -> str | None:
        """Accept few enough entries."""
        if not isinstance(value, dict):
            return "must be an object from token ids to numbers"
        if len(value) > self.count:
            return f"has more than {self.count} entries"
        if not all(key.isascii() and key.isdecimal() and len(key) <= len(str(MAX_TOKEN_ID)) for key in value):
            return "must have token ids as keys"
        return next(filter(None, map(number, value.values())), None)


@dataclass(frozen=True)
class Objects:
    """A list of objects, each of which a model of the engine's API is tried on."""

    count: int
    """Most objects."""
    values: int
    """Most objects, lists and entries of lists in all of it."""
    entries: int
    """Most entries of a list in it."""

    def __call__(self, value: Any) -> str | None:
        """Accept few enough objects; a text is accepted where the engine takes one in their place."""
        if isinstance(value, str):
            return None
        if not isinstance(value, list):
            return "must be a list"
        if len(value) > self.count:
            return f"has more than {self.count} entries"
        if not all(isinstance(item, dict) for item in value):
            return "must hold objects only"
        return self._parts_problem(value)

    def _parts_problem(self, objects: list[Any]) -> str | None:
        """What is wrong with what is in the objects."""
        values, pending = 0, [*objects]
        while pending:
            item = pending.pop()
            values += 1
            if isinstance(item, dict):
                pending.extend(each for each in item.values() if isinstance(each, (dict, list)))
            elif isinstance(item, list):
                if len(item) > self.entries:
                    return f"has a list of more than {self.entries} entries in it"
                pending.extend(item)
            if values + len(pending) > self.values:
                return f"has more than {self.values} objects, lists and entries of lists in it"
        return None


@dataclass(frozen=True)
class Fields:
    """An object some of whose fields are bounded."""

    bounds: dict[str, Bound]
    """Bounds by the name of the field."""

    def __call__(self, value: Any) -> str | None:
        """Accept an object whose fields are within their bounds."""
        if not isinstance(value, dict):
            return "must be an object"
        return problem_in(value, self.bounds)


def problem_in(fields: dict[str, Any], bounds: dict[str, Bound]) -> str | None:
    """What is wrong with the first field that exceeds its bound; a field that is missing or null exceeds none."""
    for name, bound in bounds.items():
        value = fields.get(name)
        if value is not None and (problem := bound(value)):
            return f"{name} {problem}"
    return None
