"""Recipes are parsed strictly; errors name the line and the nearest known key."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from headway.errors import RecipeError
from headway.recipe import AdamW, load, parse

ROOT = Path(__file__).parents[3]
TEXT = """\
name: tiny
model: {layers: 1, width: 32, heads: 2, kv_heads: 1, ffn_width: 64}
data:
  block_tokens: 64
train:
  tokens: 8192
  batch_tokens: 1024
  micro_batch_tokens: 128
  lanes: 4
"""


def parse_error(text: str, *overrides: str) -> str:
    """The message of a refused recipe."""
    with pytest.raises(RecipeError) as caught:
        parse(text, origin="tiny.yaml", overrides=overrides)
    return str(caught.value)


def test_an_unknown_key_is_named_with_file_line_and_nearest_known_key() -> None:
    """The error of a misspelt key names its line and suggests the right key."""
    assert parse_error(TEXT.replace("lanes", "lanez")) == "tiny.yaml:9: train.lanez: unknown key; did you mean lanes?"


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    """Without a similar key, all keys of the section are listed."""
    message = parse_error(TEXT + "zzzzzz: 1\n")
    assert message.startswith("tiny.yaml:10: zzzzzz: unknown key; known here: checkpoint, data, evaluation")


def test_a_key_inside_a_list_is_located() -> None:
    """The error names the line of the list item, and suggests a key of its section."""
    text = TEXT.replace(
        "  block_tokens: 64\n", "  block_tokens: 64\n  curriculum:\n    - {}\n    - {from_token: 1024}\n"
    )
    assert parse_error(text) == "tiny.yaml:7: data.curriculum.1.from_token: unknown key; did you mean from_tokens?"


def test_a_missing_key_is_named_with_its_section_line() -> None:
    """A missing key without a default is named, with the line of its section."""
    assert parse_error(TEXT.replace("  tokens: 8192\n", "")) == "tiny.yaml:5: train.tokens: missing key"


@pytest.mark.parametrize("value", ["'8192'", "8192.5", "true", "null", "-1", "[1]"])
def test_a_value_of_another_type_is_refused(value: str) -> None:
    """Values are not converted; the error shows the value."""
    message = parse_error(TEXT.replace("tokens: 8192", f"tokens: {value}"))
    assert message.startswith("tiny.yaml:6: train.tokens: ")
    assert "; it is " in message


def test_all_mistakes_are_reported_at_once() -> None:
    """Two mistakes make two lines."""
    lines = parse_error(TEXT.replace("lanes", "lanez").replace("layers: 1", "layers: x")).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["model.layers", "train.lanez"]


def test_a_mistake_in_an_override_names_the_override() -> None:
    """The error does not name the file."""
    assert parse_error(TEXT, "train.lanez=2") == "override train.lanez: unknown key; did you mean lanes?"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("seed", "write key=value"),
        ("=1", "write key=value"),
        ("name.x=1", "name is not a section"),
        ("seed=[", "the value is not YAML"),
    ],
)
def test_an_override_that_means_nothing_is_refused(override: str, reason: str) -> None:
    """An override without a key, below a value, or of broken YAML is quoted in the error."""
    message = parse_error(TEXT, override)
    assert message.startswith(f"override {override!r}: ")
    assert reason in message


def test_overrides_replace_and_make_sections() -> None:
    """An override reaches any depth, creates missing sections, and the last one wins."""
    recipe = parse(TEXT, overrides=["train.optimizer.eps=1e-9", "seed=3", "seed=4"])
    assert recipe.train.optimizer == AdamW(eps=1e-9)
    assert recipe.seed == 4


@pytest.mark.parametrize(("text", "number"), [("3e-4", 3e-4), ("3.0e-4", 3e-4), ("1E-3", 1e-3), ("2e+0", 2.0)])
def test_scientific_notation_is_a_number(text: str, number: float) -> None:
    """`3e-4` is a number in a file and in an override, although it is a string in YAML 1.1."""
    assert parse(TEXT, overrides=[f"train.optimizer.learning_rate={text}"]).train.optimizer.learning_rate == number
    assert parse(TEXT + f"  optimizer: {{learning_rate: {text}}}\n").train.optimizer.learning_rate == number


def test_text_that_looks_nearly_like_a_number_stays_text() -> None:
    """A name such as `3e-4b` is a string."""
    assert parse(TEXT.replace("name: tiny", "name: 3e-4b")).name == "3e-4b"


def test_broken_yaml_is_named_by_its_line() -> None:
    """Text that is not YAML is refused with the line where it breaks."""
    assert re.match(r"tiny\.yaml:\d+: not YAML: ", parse_error("name: [tiny\n"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{a: " * 200_000,
        "- " * 100_000,
        "a: &a {k: 1}\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefgh")),
    ],
    ids=["lists", "mappings", "block lists", "aliases of aliases"],
)
def test_yaml_that_no_recipe_has_is_refused_before_it_is_built(text: str) -> None:
    """PyYAML builds by recursion in C, which ends the process; an alias repeats what it names."""
    assert re.match(r"tiny\.yaml:\d+: not YAML: .*(more than 50 levels|nesting)", parse_error(text))
    assert "not YAML" in parse_error(TEXT, f"name={text}")


@pytest.mark.parametrize(
    "value",
    [
        "2026-99-99",
        "2026-01-01T99:99:99Z",
        "!!float x",
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
        "9" * 5000,
        "1:" * 400_000 + "1",
        "1:" * 300 + "1.0",
        "{? [a] : 1}",
        "{? {a: 1} : 1}",
        "\0",
        "\udcff",
    ],
    ids=lambda value: value[:12].encode("unicode_escape").decode(),
)
def test_a_value_that_its_type_does_not_have_is_refused_in_one_line(value: str) -> None:
    """PyYAML ends in errors of Python for some, and computes for hours on a long number with colons."""
    assert re.fullmatch(r"tiny\.yaml(:\d+)?: not YAML: .+", parse_error(f"name: {value}\n"))
    assert "not YAML" in parse_error(TEXT, f"name={value}")


def test_an_alias_repeats_a_value() -> None:
    """Aliases are YAML, and stay possible."""
    text = TEXT.replace("layers: 1", "layers: &one 1").replace("kv_heads: 1", "kv_heads: *one")
    assert parse(text) == parse(TEXT)


def test_a_recipe_without_end_is_refused() -> None:
    """A device, or a file that grew, is read no further than a recipe goes."""
    with pytest.raises(RecipeError, match=r"/dev/zero: is longer than 1,048,576 characters"):
        load("/dev/zero")


@pytest.mark.parametrize("text", ["", "- name\n", "tiny\n"])
def test_a_document_that_is_no_mapping_is_refused(text: str) -> None:
    """A list, a word or nothing at all is not a recipe."""
    assert "a recipe is a mapping of keys" in parse_error(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(RecipeError, match=r"absent\.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "jobs/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    """Each recipe in jobs/ is valid and has the name of its file."""
    assert load(path).name == path.stem


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("data.curriculum=[]", "at least 1 item"),
        ("data.curriculum=[{from_tokens: 1024}]", "must start at 0 and rise"),
        ("data.curriculum=[{}, {from_tokens: 2048}, {from_tokens: 1024}]", "must start at 0 and rise"),
        ("data.curriculum=[{}, {from_tokens: 0}]", "must start at 0 and rise"),
        ("data.curriculum=[{}, {from_tokens: 1000}]", "1,000 is not a multiple of train.batch_tokens 1,024"),
        ("data.curriculum=[{sequence_tokens: 24}]", "24 does not divide data.block_tokens 64"),
        ("data.curriculum=[{weights: {elsewhere: 1.0}}]", "unknown sources: elsewhere"),
        ("data.curriculum=[{weights: {stdlib: 0.0}}]", "greater than 0"),
        ("data.block_tokens=48", "not a whole number of blocks"),
        ("train.batch_tokens=1000", "the nearest that can: 1,024"),
        ("train.schedule={warmup_tokens: 8000, decay_tokens: 8000}", "longer than the budget"),
        ("train.schedule={kind: wsd, warmup_tokens: 7373}", "a decay of 1,638 are together longer than the budget"),
        (
            "train.schedule={kind: wsd, warmup_share: 0.9, decay_share: 0.2}",
            "a warm-up of 7,373 tokens and a decay of 1,638",
        ),
        ("train.schedule={warmup_tokens: 1, warmup_share: 0.1}", "write one of them"),
        ("train.schedule={kind: wsd, decay_tokens: 1, decay_share: 0.1}", "write one of them"),
        ("train.optimizer.betas=[0.9, 1.0]", "less than 1"),
        ("data.document_bytes=3", "greater than or equal to 4"),
        ("data.sources={}", "at least 1 item"),
        ("model.heads=3", "cannot be divided among 3 heads"),
        ("model.heads=32", "rotary positions need an even number"),
        ("model.kv_heads=3", "cannot share 3 kv_heads"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_figures(override: str, reason: str) -> None:
    """Curriculum, batch, schedule and heads must fit together; the error shows the numbers that do not."""
    assert reason in parse_error(TEXT, override)


def test_weights_whose_sum_is_no_number_are_refused() -> None:
    """Each may be one; a share of infinity is none."""
    sources = "data.sources={a: {path: a}, b: {path: b}}"
    error = parse_error(TEXT, sources, "data.curriculum=[{weights: {a: 1e308, b: 1e308}}]")
    assert "the sum of the weights is too large" in error


def test_an_override_reaches_a_source_whose_name_has_dots() -> None:
    """The longest key that is there is meant."""
    overrides = [
        "data.sources={my.web: {path: a}, my: {path: b}}",
        "data.sources.my.web.path=c",
        "data.sources.my.path=d",
    ]
    sources = parse(TEXT, overrides=overrides).data.sources
    assert {name: source.path for name, source in sources.items()} == {"my.web": "c", "my": "d"}


def test_an_override_of_endless_depth_is_refused() -> None:
    """Before its parts are tried."""
    assert "no key has more than 50 sections" in parse_error(TEXT, "a" + ".a" * 60_000 + "=1")


def test_a_curriculum_that_rises_is_read() -> None:
    """Stages that start at 0 and rise by whole batches, with lengths that divide the block, are accepted."""
    recipe = parse(
        TEXT, overrides=["data.curriculum=[{sequence_tokens: 32}, {from_tokens: 2048, weights: {stdlib: 2.0}}]"]
    )
    assert [stage.from_tokens for stage in recipe.data.curriculum] == [0, 2048]
