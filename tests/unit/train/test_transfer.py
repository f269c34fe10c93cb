"""Transfers of micro-batches to the device."""

import numpy as np
import torch

from headway.data import MicroBatch
from headway.train.compute.transfer import Transfer


def test_a_batch_keeps_its_tokens_and_documents() -> None:
    """Tokens are equal; documents have starts if rows hold several, and are None if the batch has none."""
    inputs, targets = np.random.default_rng(1).integers(0, 99, (2, 3, 8))
    numbers = np.zeros((3, 8), dtype=np.int32)
    transfer = Transfer(torch.device("cpu"))
    for documents in (None, numbers, np.where(np.arange(8) < 5, numbers, 1).astype(np.int32)):
        batch = transfer(MicroBatch(inputs, targets, documents))
        batch.wait()
        assert (batch.inputs.tolist(), batch.targets.tolist()) == (inputs.tolist(), targets.tolist())
        assert (batch.documents is None) == (documents is None)
    assert batch.documents is not None
    assert batch.documents.starts is not None
    assert batch.documents.starts.tolist() == [0, 5, 8, 13, 16, 21, 24]
