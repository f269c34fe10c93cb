"""An array's members: every combination once, in order, with a name and a valid recipe."""

from pathlib import Path

import pytest

from headway.errors import RecipeError, UsageError
from headway.launch.sweep import sweep_members
from headway.recipe import AdamW, RecipeDocument

TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 2048}
"""
DOCUMENT = RecipeDocument(TEXT, origin="slm.yaml")
RATE = "train.optimizer.learning_rate"


def runs(*arrays: str, name: str | None = None) -> list[str]:
    """Names of the members."""
    return [member.run for member in sweep_members(DOCUMENT, [], arrays, name)]


def test_without_an_array_there_is_one_run() -> None:
    """Its name is the recipe's, or the given one."""
    (member,) = sweep_members(DOCUMENT, ["seed=3"], [])
    assert (member.run, member.overrides, member.recipe.seed) == ("slm", ["seed=3"], 3)
    assert runs(name="other") == ["other"]


def test_several_keys_are_multiplied_in_order() -> None:
    """The last key varies fastest; names consist of the keys' last parts and the values as written."""
    members = sweep_members(DOCUMENT, ["train.lanes=2"], ["seed=1,2", f"{RATE}=3e-4,0.001"])
    assert [member.run for member in members] == [
        "slm.seed-1.learning_rate-3e-4",
        "slm.seed-1.learning_rate-0.001",
        "slm.seed-2.learning_rate-3e-4",
        "slm.seed-2.learning_rate-0.001",
    ]
    assert members[2].overrides == ["train.lanes=2", "seed=2", f"{RATE}=3e-4"]
    assert (members[2].recipe.seed, members[2].recipe.train.optimizer.learning_rate) == (2, 3e-4)
    assert members[2].recipe.train.lanes == 2


def test_keys_of_one_name_are_told_apart_by_their_sections() -> None:
    """Sections are added only where they are needed."""
    assert runs("train.tokens=4096", "evaluation.tokens=8,16", "seed=1") == [
        "slm.train.tokens-4096.evaluation.tokens-8.seed-1",
        "slm.train.tokens-4096.evaluation.tokens-16.seed-1",
    ]


def test_a_value_may_be_a_list() -> None:
    """Commas inside brackets and quotes do not split values; characters that are invalid in names are dropped."""
    members = sweep_members(DOCUMENT, [], ["train.optimizer.betas=[0.9, 0.95],[0.8,0.9]"])
    assert [member.recipe.train.optimizer for member in members] == [AdamW(), AdamW(betas=[0.8, 0.9])]
    assert [member.run for member in members] == ["slm.betas-0.9-0.95", "slm.betas-0.8-0.9"]
    assert runs("data.path='a b/c',d") == ["slm.path-a-b-c", "slm.path-d"]


def test_names_that_clash_or_are_too_long_are_indices() -> None:
    """Values that do not make unique, short names are replaced by indices."""
    assert runs("data.path=a/b,a:b") == ["slm.0", "slm.1"]
    assert runs(f"data.path={'x' * 120},y") == ["slm.0", "slm.1"]


def test_a_sweep_file_lists_members(tmp_path: Path) -> None:
    """Each member has its own keys, dotted or in sections, in YAML or JSON."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"- {{seed: 1, {RATE}: 3e-4}}\n- seed: 2\n  train:\n    optimizer: {{learning_rate: 1e-3}}\n- seed: 3\n"
    )
    members = sweep_members(DOCUMENT, [], [str(file)])
    assert [(member.recipe.seed, member.recipe.train.optimizer.learning_rate) for member in members] == [
        (1, 3e-4), (2, 1e-3), (3, 3e-4),
    ]  # fmt: skip
    assert [member.run for member in members] == [
        "slm.seed-1.learning_rate-3e-4",
        "slm.seed-2.learning_rate-1e-3",
        "slm.seed-3",
    ]


def test_a_sweep_file_multiplies_lists(tmp_path: Path) -> None:
    """A mapping of keys to lists is their product; it combines with other axes."""
    file = tmp_path / "sweep.json"
    file.write_text('{"seed": [1, 2], "train": {"optimizer": {"betas": [[0.9, 0.95]]}}}')
    members = sweep_members(DOCUMENT, [], [str(file), f"{RATE}=1e-3,2e-3"])
    assert [(member.recipe.seed, member.recipe.train.optimizer.learning_rate) for member in members] == [
        (1, 1e-3), (1, 2e-3), (2, 1e-3), (2, 2e-3),
    ]  # fmt: skip


def test_a_value_in_block_style_is_kept_whole(tmp_path: Path) -> None:
    """A list over several lines is the same list in the override."""
    file = tmp_path / "sweep.yaml"
    file.write_text("- train:\n    optimizer:\n      betas:\n        - 0.9\n        - 0.99\n")
    (member,) = sweep_members(DOCUMENT, [], [str(file)])
    assert member.recipe.train.optimizer == AdamW(betas=[0.9, 0.99])
    assert member.overrides == ["train.optimizer.betas=[0.9, 0.99]"]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (["seed="], "write key=a,b,c"),
        (["=1,2"], "write key=a,b,c"),
        (["seed=[1"], "not YAML"),
        (["none.yaml"], "none.yaml: cannot be read as a sweep file"),
        (["/dev/zero"], "is longer than 1,048,576 characters"),
        (["seed=1,2,1"], "members 0 and 2 are equal, seed=1"),
    ],
)
def test_an_axis_that_means_nothing_is_refused(array: list[str], complaint: str) -> None:
    """The error says what to write."""
    with pytest.raises(UsageError, match=complaint):
        runs(*array)


@pytest.mark.parametrize("text", ["", "[]", "- {}", "a word", "- 1", "[[1]]"])
def test_a_sweep_file_that_asks_for_nothing_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"sweep\.yaml: "):
        runs(str(tmp_path / "sweep.yaml"))


def test_a_key_without_a_list_is_named_by_its_line(tmp_path: Path) -> None:
    """The error for a mapping of keys to lists names the line."""
    (tmp_path / "sweep.yaml").write_text("seed: [1]\ntrain.lanes: 2\n")
    with pytest.raises(UsageError, match=r"sweep\.yaml:2: train\.lanes must have a list"):
        runs(str(tmp_path / "sweep.yaml"))


def test_a_wrong_member_is_named_with_its_key() -> None:
    """Every member's recipe is validated before a submission."""
    with pytest.raises(RecipeError, match=r"member 2 of the array, seed=x: override seed: .*integer"):
        runs("seed=1,2,x,3")
    with pytest.raises(RecipeError, match=r"member 0 of the array, train\.lane=1: .*did you mean lanes"):
        runs("train.lane=1")


@pytest.mark.parametrize("name", ["a b", "", ".x", "x" * 101, "a/b"])
def test_a_name_that_no_run_can_have_is_refused(name: str) -> None:
    """The name is checked before it becomes a key in the store."""
    with pytest.raises(UsageError, match="--name"):
        runs(name=name)
