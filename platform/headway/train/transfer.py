"""Bringing micro-batches to the device before they are asked for, beside what it computes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headway.data import MicroBatch
from headway.model import Documents


@dataclass(frozen=True)
class DeviceBatch:
    """A micro-batch as the model takes it."""

    inputs: torch.Tensor
    """[rows, sequence] int64."""
    targets: torch.Tensor
    documents: Documents | None
    ready: torch.cuda.Event | None = None
    """Comes when the tensors are there; None where they are from the start."""

    def arrive(self) -> None:
        """Let the current stream wait for the tensors, and keep their memory until it is done with them."""
        if self.ready is None:
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(self.ready)
        starts = self.documents.starts if self.documents else None
        for tensor in (self.inputs, self.targets, starts):
            if tensor is not None:
                tensor.record_stream(stream)


class Transfer:
    """Copies micro-batches to a device: to a GPU on a stream of its own, from pinned memory, from any thread."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: MicroBatch) -> DeviceBatch:
        """The micro-batch `batch` on the device, or on its way there."""
        documents = None if batch.documents is None else Documents.find(batch.documents)
        if self._stream is None:
            return DeviceBatch(torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets), documents)
        with torch.cuda.stream(self._stream):
            inputs, targets = self._send(batch.inputs), self._send(batch.targets)
            documents = documents.to(self.device) if documents else None
            return DeviceBatch(inputs, targets, documents, self._stream.record_event())

    def _send(self, tokens: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(tokens).pin_memory().to(self.device, non_blocking=True)
