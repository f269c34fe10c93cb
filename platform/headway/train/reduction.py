"""Summing gradients in one fixed order, whatever the world size.

The batch is a list of lanes. A lane's gradient is computed on one rank; in each round every rank computes one lane,
and the ranks' pieces are exchanged and added in the order of the list: ((lane 0 + lane 1) + lane 2) + ... So the sum
has the same bits for every world size, and is cut into the usual shards.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from headway.train.collective_timer import CollectiveTimer


class OrderedReduceScatter:
    """FSDP2's reduce-scatter of one parameter group, replaced by exchange and ordered addition."""

    def __init__(self, waiting: CollectiveTimer) -> None:
        """`waiting` takes note of the exchanges."""
        self.waiting = waiting
        self.sum: torch.Tensor | None = None
        self.present = 0
        """Ranks whose lane exists in this round; the pieces of later ranks are not added."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A buffer, as FSDP asks for it."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,  # noqa: ARG002 - it is always a sum
        async_op: bool = False,  # noqa: ARG002, FBT001 - FSDP's signature
    ) -> None:
        """Put the sum of all lanes so far into `output_tensor`."""
        exchanged = torch.empty_like(input_tensor)
        with self.waiting:
            dist.all_to_all_single(exchanged, input_tensor, group=group)
        terms = [*exchanged.view(group.size(), -1)[: self.present].unbind()]
        if self.sum is not None:
            terms.insert(0, self.sum)
        if len(terms) == 1:
            output_tensor.copy_(terms[0])
        else:
            torch.add(terms[0], terms[1], out=output_tensor)
        for term in terms[2:]:
            output_tensor.add_(term)
        self.sum = output_tensor


class OrderedSum:
    """Ordered reduction for a whole sharded model.

    On a single rank FSDP adds each lane's gradient to the sum so far by itself, which is the same order.
    """

    def __init__(self, model: torch.nn.Module, waiting: CollectiveTimer) -> None:
        """Replace the reduce-scatter of every FSDP group in `model`; `waiting` takes note of what it waits."""
        self.parameters = list(model.parameters())
        self.groups: list[OrderedReduceScatter] = []
        if dist.get_world_size() == 1:
            return
        for module in model.modules():
            if isinstance(module, FSDPModule):
                group = OrderedReduceScatter(waiting)
                module.set_custom_reduce_scatter(group)  # type: ignore[arg-type]  # it has all that is called
                self.groups.append(group)

    def begin(self) -> None:
        """Forget the sums of the batch before."""
        for group in self.groups:
            group.sum = None

    def begin_round(self, present: int) -> None:
        """Begin a round in which the first `present` ranks have a lane."""
        for group in self.groups:
            group.present = present
        if self.groups:  # each round hands back the sum so far: FSDP must not add it to the sum before
            for parameter in self.parameters:
                parameter.grad = None
