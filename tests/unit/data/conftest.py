"""A small corpus, and recipes over it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.data import Dataset, open_data
from headway.data.build import build
from headway.localfiles import CACHE_VARIABLE
from headway.recipe import Recipe, parse

BLOCK = 64
Recipes = Callable[..., Recipe]


def prose(seed: int, size: int) -> str:
    """Lines of made-up words, at least `size` characters."""
    random_ = random.Random(seed)
    words = ["".join(random_.choices("abcdefghij", k=random_.randint(2, 7))) for _ in range(500)]
    lines, length = [], 0
    while length < size:
        lines.append(" ".join(random_.choices(words, k=12)))
        length += len(lines[-1]) + 1
    return "\n".join(lines) + "\n"


def write_lines(path: Path, texts: list[str]) -> None:
    """Put one JSON record for each text into `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def recipes(tmp_path: Path) -> Recipes:
    """A factory of recipes: `recipes({name: path}, train={...}, **data)`."""

    def make(sources: dict[str, Any], *, seed: int = 0, train: Any = None, model: Any = None, **data: Any) -> Recipe:
        document = {
            "name": "test",
            "seed": seed,
            "data": {
                "path": str(tmp_path / "built"),
                "sources": {
                    name: source if isinstance(source, dict) else {"path": str(source)}
                    for name, source in sources.items()
                },
                "tokenizer": {"vocabulary": 400, "sample_bytes": 100_000},
                "block_tokens": BLOCK,
                "held_out_share": 0.1,
                **data,
            },
            "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "ffn_width": 64, **(model or {})},
            "train": {"tokens": 10**6, "batch_tokens": 1024, "micro_batch_tokens": 128, "lanes": 4, **(train or {})},
        }
        return parse(json.dumps(document))

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Path]:
    """Two sources of many small documents; `large` is three times as large as `small`."""
    large, small = tmp_path / "in" / "large.jsonl", tmp_path / "in" / "small.jsonl"
    write_lines(large, [prose(seed, 600) for seed in range(90)])
    write_lines(small, [prose(1000 + seed, 600) for seed in range(30)])
    return {"large": large, "small": small}


@pytest.fixture
def dataset(recipes: Recipes, corpus: dict[str, Path]) -> Dataset:
    """The corpus, built and open."""
    recipe = recipes(corpus)
    build(recipe, workers=1)
    return open_data(recipe)
