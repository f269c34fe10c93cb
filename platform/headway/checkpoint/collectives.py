"""Collectives for small plain data between the ranks of an attempt. They exchange JSON, and never unpickle."""

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from headway import errors


class Collectives:
    """Collectives over a gloo process group. Every rank must make each call."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def all_gather(self, item: Any) -> list[Any]:
        """The items of all ranks, by rank, on every rank."""
        data = json.dumps(item).encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)]), group=self.group)
        longest = max(int(length) for length in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(rows, padded, group=self.group)
        return [json.loads(row[: int(length)].numpy().tobytes()) for row, length in zip(rows, lengths, strict=True)]

    def broadcast(self, item: Any) -> Any:
        """The item of rank 0, on every rank."""
        return self.all_gather(item if self.rank == 0 else None)[0]

    def on_rank0(self, function: Callable[[], Any]) -> Any:
        """Call `function` on rank 0; returns its value on every rank, or raises its HeadwayError on every rank."""
        outcome: dict[str, Any] = {}
        if self.is_rank0:
            try:
                outcome = {"value": function()}
            except errors.HeadwayError as error:
                outcome = {"error": type(error).__name__, "message": str(error)}
        outcome = self.broadcast(outcome)
        if "error" in outcome:
            raise errors.revive(outcome["error"], outcome["message"])
        return outcome["value"]

    @property
    def is_rank0(self) -> bool:
        """Whether this is rank 0, the only rank that writes to the journal."""
        return self.rank == 0
