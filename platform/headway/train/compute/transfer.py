"""Copies micro-batches to the device ahead of time, while the device computes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headway.data import MicroBatch
from headway.model import Documents


@dataclass(frozen=True)
class DeviceBatch:
    """A micro-batch on the device."""

    inputs: torch.Tensor
    """[rows, sequence] int64."""
    targets: torch.Tensor
    documents: Documents | None
    ready: torch.cuda.Event | None = None
    """Recorded when the tensors are copied; None if there was nothing to wait for."""

    def wait(self) -> None:
        """Make the current stream wait for the tensors, and keep their memory until the stream has used them."""
        if self.ready is None:
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(self.ready)
        starts = self.documents.starts if self.documents else None
        for tensor in (self.inputs, self.targets, starts):
            if tensor is not None:
                tensor.record_stream(stream)


class Transfer:
    """Copies micro-batches to a device. For a GPU it uses its own stream and pinned memory. Works in any thread."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: MicroBatch) -> DeviceBatch:
        """The micro-batch on the device; the copy may still be in progress (`DeviceBatch.wait`)."""
        documents = None if batch.documents is None else Documents.from_numbers(batch.documents)
        if self._stream is None:
            return DeviceBatch(torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets), documents)
        with torch.cuda.stream(self._stream):
            inputs, targets = self._copy(batch.inputs), self._copy(batch.targets)
            documents = documents.to(self.device) if documents else None
            return DeviceBatch(inputs, targets, documents, self._stream.record_event())

    def _copy(self, tokens: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(tokens).pin_memory().to(self.device, non_blocking=True)
