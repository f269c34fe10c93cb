"""Sections of several kinds: each kind has its own keys, and the default one is as before there were kinds."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.plugin.averaging_settings import Averaging
from tests.plugin.install import install
from tests.plugin.lion_settings import Lion

from headway.errors import RecipeError, UnknownKindError
from headway.recipe import Recipe, differences, digest, parse, schema, to_yaml
from headway.recipe.schema import Train

TEXT = """\
name: tiny
model: {layers: 1, width: 32, heads: 2, kv_heads: 1, ffn_width: 64}
data: {block_tokens: 64}
train:
  tokens: 8192
  batch_tokens: 1024
  micro_batch_tokens: 128
  optimizer:
    kind: lion
"""
ADAMW = TEXT.partition("  optimizer")[0]
SECOND = TEXT.replace("heads: 2, kv_heads: 1, ffn_width: 64", "inner_width: 8, kind: averaging")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with the second kinds is installed."""
    install(tmp_path, monkeypatch)


def refused(text: str) -> str:
    """The message of a refused recipe."""
    with pytest.raises(RecipeError) as caught:
        parse(text, origin="tiny.yaml")
    return str(caught.value)


@pytest.mark.usefixtures("package")
def test_a_kind_has_its_own_keys() -> None:
    """The section is an object of the kind's class, with its defaults, when it is read and when it was written."""
    recipe = parse(SECOND)
    assert recipe.train.optimizer == Lion(kind="lion")
    assert recipe.model == Averaging(kind="averaging", layers=1, width=32, inner_width=8)
    assert parse(to_yaml(recipe)) == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.usefixtures("package")
def test_a_key_of_another_kind_is_refused() -> None:
    """The error names the line, the kind, and the keys that it has."""
    known = "clip_norm, interpolation, kind, learning_rate, momentum, weight_decay"
    place = "tiny.yaml:10: train.optimizer.eps: unknown key for kind lion"
    assert refused(TEXT + "    eps: 1.0e-8\n") == f"{place}; known here: {known}"
    assert "train.optimizer.momentum: unknown key for kind adamw" in refused(ADAMW + "  optimizer: {momentum: 0.9}\n")
    assert "heads: unknown key for kind averaging" in refused(SECOND.replace("inner_width: 8", "heads: 2"))


@pytest.mark.usefixtures("package")
def test_values_of_a_kind_are_checked_at_their_line() -> None:
    """A wrong value is shown with its line, as anywhere in a recipe."""
    message = refused(TEXT + "    momentum: -1.0\n")
    assert message == "tiny.yaml:10: train.optimizer.momentum: Input should be greater than 0; it is -1.0"


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    """The error names the line and the kinds that there are; a missing package has an error of its own class."""
    with pytest.raises(UnknownKindError):
        parse(TEXT)
    assert refused(TEXT) == "tiny.yaml:9: train.optimizer.kind: unknown kind 'lion'; installed kinds: adamw"
    hint = "did you mean adamw? installed kinds: adamw"
    assert refused(TEXT.replace("lion", "adam")) == f"tiny.yaml:9: train.optimizer.kind: unknown kind 'adam'; {hint}"
    assert "kind: Input should be a valid string" in refused(TEXT.replace("lion", "3"))


def test_the_default_kind_written_out_changes_no_digest() -> None:
    """A recipe from before there were kinds has the same digest, and the same meaning."""
    before, now = parse(ADAMW), parse(TEXT.replace("lion", "adamw").replace("model: {", "model: {kind: llama, "))
    assert digest(before) == digest(now)
    assert differences(before, now) == []


@pytest.mark.usefixtures("package")
def test_another_kind_changes_the_digest() -> None:
    """The kind itself is part of the meaning, and is the first difference."""
    recipes = [parse(text) for text in (ADAMW, TEXT, SECOND)]
    assert len({digest(recipe) for recipe in recipes}) == 3
    renamed = recipes[1].train.model_copy(update={"optimizer": Lion(kind="another")})
    assert digest(recipes[1]) != digest(recipes[1].model_copy(update={"train": renamed}))
    changes = differences(recipes[0], recipes[1])
    assert "train.optimizer.kind: 'adamw' -> 'lion'" in changes
    assert "train.optimizer.eps: 1e-08 -> None" in changes
    assert not any("learning_rate" in change for change in changes)


@pytest.mark.usefixtures("package")
def test_a_section_made_in_python_must_name_its_kind() -> None:
    """Without its kind it would have the digest of the default one; a section of another key is refused, too."""
    train = parse(ADAMW).train.model_dump()
    assert Train.model_validate({**train, "optimizer": Lion(kind="lion")}).optimizer == Lion(kind="lion")
    with pytest.raises(ValidationError, match="Lion has kind adamw, which is not its own"):
        Train.model_validate({**train, "optimizer": Lion()})
    with pytest.raises(ValidationError, match="valid dictionary"):
        Train.model_validate({**train, "optimizer": parse(ADAMW).model})


@pytest.mark.usefixtures("package")
def test_the_json_schema_has_every_installed_kind() -> None:
    """It accepts each kind with its keys, and refuses the keys of another."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    for text in (ADAMW, TEXT, SECOND):
        document = parse(text).model_dump(mode="json")
        assert validator.is_valid(document)
        assert not validator.is_valid({**document, "model": {**document["model"], "kind": "other"}})
        other = {**document["train"]["optimizer"], "eps": 1e-8, "momentum": 0.9}
        assert not validator.is_valid({**document, "train": {**document["train"], "optimizer": other}})
