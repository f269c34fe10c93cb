"""What is written as YAML is read back as it was."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.recipe.test_parser import TEXT

from headway.recipe import Recipe, parse, to_yaml, yaml_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
"""Any text that UTF-8 has."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@example({"a": "7845e12"})
@example({"a": "1:30", "b": "=", "c": "<<", "d": "2026-01-01", "e": "0o17", "f": "1_000", "~": "null"})
@example({"a": "\x85 \u2028", "b": " \n", "c": "\ufeff", "d": "\t"})
def test_any_value_survives_being_written(value: dict[str, object]) -> None:
    """Texts that look like numbers, times, nulls or references stay texts."""
    assert yaml_text.load(yaml_text.dump(value)) == value


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe whose free texts a test replaces."""
    return parse(TEXT)


@settings(deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    source=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    path=TEXTS,
    weight=st.floats(min_value=1e-300, max_value=1e300),
)
@example(name="7845e12", source="1e3", path="0x1F", weight=1e-05)
@example(name="null", source="no", path="~", weight=1.0)
def test_a_recipe_survives_being_written(recipe: Recipe, name: str, source: str, path: str, weight: float) -> None:
    """The frozen recipe of a run is the one that it was started with."""
    data = recipe.data.model_copy(
        update={
            "path": path,
            "sources": {source: next(iter(recipe.data.sources.values())).model_copy(update={"path": path})},
            "curriculum": [recipe.data.curriculum[0].model_copy(update={"weights": {source: weight}})],
        }
    )
    changed = recipe.model_copy(update={"name": name, "data": data})
    assert parse(to_yaml(changed)) == changed
