"""What training takes of a device's memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from headway.model.memory import GIB, RECOMPUTE, USABLE, advice, foresee
from headway.recipe import Recipe, load

ROOT = Path(__file__).parents[3]
LLAMA = {"layers": 7, "width": 4096, "heads": 32, "kv_heads": 8, "ffn_width": 14336}


def plan(name: str, tokens: int, recompute: str = "none", model: Any = ()) -> Recipe:
    """A recipe of jobs/ on one GPU, with micro-batches of `tokens`."""
    document = load(ROOT / "jobs/recipes" / f"{name}.yaml").model_dump(mode="json")
    document["data"] |= {"block_tokens": 2048, "curriculum": [{"from_tokens": 0}]}
    document["model"] |= dict(model)
    document["train"] |= {
        "lanes": 1, "micro_batch_tokens": tokens, "batch_tokens": 4 * tokens, "activation_checkpointing": recompute,
    }  # fmt: skip
    document["train"]["schedule"] = {"kind": "cosine"}
    document["machine"]["reshard"] = False
    return Recipe.model_validate_json(json.dumps(document))


@pytest.mark.parametrize(
    ("recipe", "vocabulary", "chunk", "measured"),
    [
        (plan("slm-1b", 16_384), 32_768, 8192, 42.6),
        (plan("slm-1b", 32_768, "selective"), 32_768, 8192, 50.8),
        (plan("slm-350m", 65_536), 32_768, 8192, 53.2),
        (plan("slm-350m", 32_768), 32_768, 8192, 30.3),
        (plan("slm-1b", 16_384, model=LLAMA), 128_256, 4096, 63.4),
    ],
)
def test_what_is_foreseen_is_what_an_h100_measured(
    recipe: Recipe, vocabulary: int, chunk: int, measured: float
) -> None:
    """Compiled, on one rank, the peak of allocated memory [GiB] of docs/gpu.md is foreseen to 12 %."""
    train = recipe.train.model_copy(update={"loss_chunk_tokens": chunk})
    foreseen = foresee(recipe.model_copy(update={"train": train}), vocabulary, ranks=1, half=True)
    assert foreseen.total / GIB == pytest.approx(measured, rel=0.12)


def test_ranks_share_the_state_and_recomputation_saves_activations() -> None:
    """More ranks hold less state each; each step of recomputation keeps less than the one before."""
    one, eight = (foresee(plan("slm-1b", 16_384), 32_768, ranks=ranks, half=True) for ranks in (1, 8))
    assert eight.state * 8 == one.state
    kept = [
        foresee(plan("slm-1b", 16_384, recompute), 32_768, ranks=1, half=True).activations for recompute in RECOMPUTE
    ]
    assert sorted(kept, reverse=True) == kept
    assert len({*kept}) == len(kept)


@pytest.mark.parametrize(
    ("lanes", "ranks", "mode", "wholes"),
    [
        (4, 4, "fast", 0.0),
        (8, 4, "fast", 0.75),
        (4, 4, "bitwise", 0.0),
        (8, 4, "bitwise", 0.25),
        (8, 1, "bitwise", 1.0),
    ],
)
def test_gradients_that_wait_for_others_are_foreseen(lanes: int, ranks: int, mode: str, wholes: float) -> None:
    """Several lanes a rank wait whole to be shared out with `fast`, and beside the sum so far with `bitwise`."""
    recipe = plan("slm-1b", 16_384)
    train = recipe.train.model_copy(update={"lanes": lanes, "batch_tokens": lanes * 16_384, "determinism": mode})
    found = foresee(recipe.model_copy(update={"train": train}), 32_768, ranks=ranks, half=True)
    whole = found.state * ranks / 4  # fp32, all parameters
    assert found.accumulated == pytest.approx(wholes * whole, rel=1e-6)


def test_advice_names_only_what_fits_and_is_not_what_was_asked() -> None:
    """Each suggestion, taken up, is foreseen to fit; on a device too small for the state there is none."""
    recipe = plan("slm-1b", 65_536)
    said = advice(recipe, 32_768, ranks=1, half=True, total=80 * GIB, device="a card")
    assert "a card, which has 80.0 GiB" in said
    hints = said.partition("most memory first: ")[2].split("; ")
    assert len(hints) == 3
    for hint in hints:
        tokens, recompute = (part.partition("=")[2] for part in hint.split())
        assert foresee(plan("slm-1b", int(tokens), recompute), 32_768, ranks=1, half=True).total <= USABLE * 80 * GIB
        assert (tokens, recompute) != ("65536", "none")
    hopeless = advice(recipe, 32_768, ranks=1, half=True, total=16 * GIB, device="a card")
    assert "use more ranks" in hopeless
