"""torch is configured as the recipe says, and changes of the environment are reported."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from headway.checkpoint.manifest import Environment
from headway.recipe import Recipe, parse
from headway.train.compute import arithmetic

CPU = torch.device("cpu")
TEXT = """\
name: tiny
model: {layers: 1, width: 32, heads: 2, kv_heads: 1, ffn_width: 64}
data: {block_tokens: 64}
train: {tokens: 8192, batch_tokens: 1024, micro_batch_tokens: 128, lanes: 4}
"""
BEFORE: dict[str, Any] = {"device": "CPU", "precision": "fp32", "threads": 1, "torch": "2.13.0", "headway": "0.1.0"}
"""An environment as old checkpoints recorded it, without `arithmetic`."""


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Restores the settings of torch."""
    yield
    torch.use_deterministic_algorithms(mode=False)


def recipe(mode: str) -> Recipe:
    """A recipe in `mode`."""
    return parse(TEXT, overrides=[f"train.determinism={mode}"])


def test_bitwise_is_strict_and_fast_is_not() -> None:
    """An operation without a deterministic kernel is an error with `bitwise`, and is allowed with `fast`."""
    arithmetic.configure(recipe("bitwise"), CPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
    arithmetic.configure(recipe("fast"), CPU)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_environment_without_arithmetic_has_version_one() -> None:
    """An old manifest counts as version 1; the differences name the change, and nothing else."""
    old = Environment.model_validate_json(json.dumps(BEFORE))
    now = Environment(**{**BEFORE, "headway": "9.9.9"}, arithmetic=arithmetic.VERSION, settings={"tf32": "False"})
    assert arithmetic.differences(old, now) == f"arithmetic: 1 -> {arithmetic.VERSION}"
    assert arithmetic.differences(now, now) == ""


def test_each_setting_that_differs_is_named() -> None:
    """A changed, removed or new setting is named."""
    settings = {"tf32": "False", "cudnn": "91900", "gone": "yes"}
    old = Environment(**BEFORE, arithmetic=2, settings=settings)
    now = Environment(**BEFORE, arithmetic=2, settings={"tf32": "True", "cudnn": "91900", "new": "1"})
    assert arithmetic.differences(old, now) == "tf32: False -> True, gone: yes -> None, new: None -> 1"


def test_the_environment_records_the_version_of_the_arithmetic() -> None:
    """It holds Headway's version of the order of sums."""
    environment = arithmetic.environment(recipe("bitwise"), CPU)
    assert (environment.arithmetic, environment.precision, environment.threads) == (arithmetic.VERSION, "fp32", 1)
