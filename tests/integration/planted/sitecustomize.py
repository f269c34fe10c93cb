"""Loaded by every Python process whose PYTHONPATH has this folder: the model has the fault that HEADWAY_PLANT names."""

import os
from typing import Any

PLANT = os.environ.get("HEADWAY_PLANT")


def plant() -> None:
    """Let the feed-forward use an operation without a deterministic kernel, or find no memory."""
    import torch

    from headway.model.llama.decoder import FeedForward

    real = FeedForward.forward

    def forward(self: Any, stream: Any) -> Any:
        if PLANT == "memory":
            raise torch.OutOfMemoryError("planted")
        return real(self, stream).put_(torch.tensor([0]), torch.zeros(1))

    FeedForward.forward = forward  # type: ignore[method-assign]


if PLANT:
    plant()
