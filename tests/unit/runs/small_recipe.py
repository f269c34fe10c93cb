"""The recipe of the runs in these tests."""

import json

from headway import recipe as recipes
from headway.recipe import Recipe


def recipe() -> Recipe:
    """A small one."""
    document = {
        "name": "run",
        "model": {"layers": 1, "width": 2, "heads": 1, "kv_heads": 1, "ffn_width": 1},
        "train": {"tokens": 2048, "batch_tokens": 2048, "micro_batch_tokens": 2048},
    }
    return recipes.parse(json.dumps(document))
