"""Small talk between the ranks of an attempt: JSON over a gloo group, so nothing is ever unpickled."""

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from headway import errors


class Collectives:
    """The ranks of a process group, able to exchange small plain data. Every call is collective."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def gather(self, item: Any) -> list[Any]:
        """Each rank's `item`, by rank, on every rank."""
        data = json.dumps(item).encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)]), group=self.group)
        longest = max(int(length) for length in lengths)
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(rows, mine, group=self.group)
        return [json.loads(row[: int(length)].numpy().tobytes()) for row, length in zip(rows, lengths, strict=True)]

    def broadcast(self, item: Any) -> Any:
        """The `item` of rank 0, on every rank."""
        return self.gather(item if self.rank == 0 else None)[0]

    def on_rank0(self, act: Callable[[], Any]) -> Any:
        """What `act` returns on rank 0, on every rank; its error is raised on every rank, too."""
        outcome: dict[str, Any] = {}
        if self.first:
            try:
                outcome = {"value": act()}
            except errors.HeadwayError as error:
                outcome = {"error": type(error).__name__, "message": str(error)}
        outcome = self.broadcast(outcome)
        if "error" in outcome:
            raise getattr(errors, outcome["error"])(outcome["message"])
        return outcome["value"]

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes to the journal."""
        return self.rank == 0
