"""Two recipes mean the same run if they differ only in where it runs, or how it is observed."""

import re
from pathlib import Path
from typing import Any

import pytest

from headway.recipe import differences, digest, load, parse, schema, to_yaml

ROOT = Path(__file__).parents[3]
TEXT = """\
name: tiny
model: {layers: 1, width: 32, heads: 2, kv_heads: 1, ffn_width: 64}
data: {block_tokens: 64}
train: {tokens: 8192, batch_tokens: 1024, micro_batch_tokens: 128, lanes: 4}
"""


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "data.path=/elsewhere",
        "evaluation.every_tokens=1024",
        "evaluation.tokens=128",
        "checkpoint.every_tokens=1024",
        "checkpoint.keep=1",
        "machine.ranks=4",
        "machine.device=cpu",
        "machine.grace_seconds=5.0",
        "machine.heartbeat_seconds=1.0",
        "machine.reshard=false",
    ],
)
def test_where_a_run_runs_does_not_change_its_identity(override: str) -> None:
    """Name, data folder, evaluation, checkpoints and machine do not change digest and differences."""
    one, other = parse(TEXT), parse(TEXT, overrides=[override])
    assert one != other
    assert digest(one) == digest(other)
    assert differences(one, other) == []


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.sources={stdlib: {path: elsewhere}}",
        "data.tokenizer.vocabulary=300",
        "data.tokenizer.sample_bytes=1000",
        "data.block_tokens=32",
        "data.held_out_share=0.1",
        "data.document_bytes=1000",
        "data.curriculum=[{sequence_tokens: 32}]",
        "data.curriculum=[{weights: {stdlib: 1.0}}]",
        "model.layers=2",
        "model.ffn_width=32",
        "model.rope_theta=500.0",
        "model.norm_eps=1e-6",
        "model.tie_embeddings=true",
        "model.attention=document",
        "train.tokens=16384",
        "train.batch_tokens=2048",
        "train.micro_batch_tokens=64",
        "train.lanes=2",
        "train.determinism=fast",
        "train.precision=bf16",
        "train.threads=2",
        "train.compile=true",
        "train.activation_checkpointing=selective",
        "train.activation_checkpointing=block",
        "train.loss_chunk_tokens=128",
        "train.optimizer.learning_rate=1e-3",
        "train.optimizer.betas=[0.9, 0.99]",
        "train.optimizer.eps=1e-9",
        "train.optimizer.weight_decay=0.0",
        "train.optimizer.clip_norm=2.0",
        "train.schedule.kind=wsd",
        "train.schedule.warmup_tokens=1024",
        "train.schedule.decay_tokens=1024",
        "train.schedule.final_ratio=0.0",
        "train.stability.on_nonfinite=stop",
        "train.stability.on_spike=skip",
        "train.stability.spike_sigmas=5.0",
        "train.stability.limit=1",
    ],
)
def test_what_decides_the_parameters_changes_the_identity(override: str) -> None:
    """Each key that affects the parameters changes the digest, and differences name exactly that key."""
    one, other = parse(TEXT), parse(TEXT, overrides=[override])
    assert digest(one) != digest(other)
    changes = differences(one, other)
    assert len(changes) == 1
    key = override.partition("=")[0]
    assert changes[0].startswith(key)
    assert " -> " in changes[0]


def test_a_default_that_is_written_out_changes_nothing() -> None:
    """The digest includes defaults and ignores the order of keys."""
    assert digest(parse(TEXT)) == digest(parse("seed: 0\n" + "\n".join(reversed(TEXT.splitlines())) + "\n"))


def test_differences_name_old_and_new() -> None:
    """A difference is the key, its old value and its new value; several are sorted."""
    one, other = parse(TEXT), parse(TEXT, overrides=["train.tokens=16384", "seed=7"])
    assert differences(one, other) == ["seed: 0 -> 7", "train.tokens: 8192 -> 16384"]


def test_the_digest_is_a_sha256() -> None:
    """It is 64 hex digits."""
    assert re.fullmatch(r"[0-9a-f]{64}", digest(parse(TEXT)))


@pytest.mark.parametrize("path", sorted((ROOT / "jobs/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_survives_being_written_and_read(path: Path) -> None:
    """What `to_yaml` writes reads back as the same recipe, so a frozen one keeps its identity."""
    recipe = load(path)
    again = parse(to_yaml(recipe))
    assert again == recipe
    assert digest(again) == digest(recipe)


DIGESTS = {
    "quickstart": "057700c02739a321c19e0e783467abf4e10a3cbcb3b1865726f6ede44b739537",
    "slm-125m": "c94f4beb2d6583449fc79efe34c57f993ec038ee89d69a09bd0aea6b67881471",
    "slm-1b": "fe8d28de35cae5b3d6293de44c3a0e767d29d97fa6e1c1cf34be8e60b22a2775",
    "slm-350m": "3a212502b5a1b4a2d235df723b24ac3fc7146cfb031f00a73a4b6365edacce99",
}
"""Digests of the recipes in jobs/, as stored runs hold them."""


def test_stored_runs_keep_their_digests() -> None:
    """A new key or a new value of a key does not change the digest of recipes that do not use it."""
    digests = {path.stem: digest(load(path)) for path in (ROOT / "jobs/recipes").glob("*.yaml")}
    assert digests == DIGESTS


def sections(tree: Any) -> list[dict[str, Any]]:
    """Every object of a JSON Schema that has properties."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    parts = [part for each in inner for part in sections(each)]
    return [tree, *parts] if isinstance(tree, dict) and isinstance(tree.get("properties"), dict) else parts


def test_the_schema_is_a_json_schema_that_accepts_and_refuses() -> None:
    """The JSON Schema is valid, accepts a whole recipe, and refuses an unknown key."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema())
    whole = parse(TEXT).model_dump(mode="json")
    assert validator(schema()).is_valid(whole)
    assert not validator(schema()).is_valid({**whole, "sed": 1})


def test_every_section_of_the_schema_refuses_unknown_keys() -> None:
    """The schema refuses every key that the parser refuses."""
    parts = sections(schema())
    assert len(parts) > 10
    assert all(part["additionalProperties"] is False for part in parts)
