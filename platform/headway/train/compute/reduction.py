"""Sums gradients in a fixed order, independent of the world size.

A batch is a list of lanes. In each round every rank computes the gradient of one lane; then the ranks exchange their
parts and add them in the order of the list: ((lane 0 + lane 1) + lane 2) + ... So the sum has the same bits for every
world size. The result is sharded as usual in FSDP.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from headway.train.compute.collective_timer import CollectiveTimer


class OrderedReduceScatter:
    """Replaces FSDP2's reduce-scatter of one parameter group by an all-to-all and ordered additions."""

    def __init__(self, timer: CollectiveTimer) -> None:
        """`timer` measures the exchanges."""
        self.timer = timer
        self.sum: torch.Tensor | None = None
        """Sum of the earlier lanes, this rank's shard."""
        self.present = 0
        """Number of ranks that have a lane in this round; the parts of the others are ignored."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Allocate a buffer for FSDP."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,  # noqa: ARG002 - it is always a sum
        async_op: bool = False,  # noqa: ARG002, FBT001 - FSDP's signature
    ) -> None:
        """Write the sum of all lanes so far to `output_tensor`."""
        exchanged = torch.empty_like(input_tensor)
        with self.timer:
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
    """Ordered reduction of all gradients of a sharded model.

    On a single rank it does nothing: FSDP itself adds each lane's gradient to the sum so far, in the same order.
    """

    def __init__(self, model: torch.nn.Module, timer: CollectiveTimer) -> None:
        """Replace the reduce-scatter of every FSDP group in `model`; `timer` measures the exchanges."""
        self.parameters = list(model.parameters())
        self.groups: list[OrderedReduceScatter] = []
        if dist.get_world_size() == 1:
            return
        for module in model.modules():
            if isinstance(module, FSDPModule):
                group = OrderedReduceScatter(timer)
                module.set_custom_reduce_scatter(group)  # type: ignore[arg-type]  # it has all that is called
                self.groups.append(group)

    def reset(self) -> None:
        """Discard the sums of the previous batch."""
        for group in self.groups:
            group.sum = None

    def begin_round(self, present: int) -> None:
        """Begin a round in which the first `present` ranks have a lane."""
        for group in self.groups:
            group.present = present
        if self.groups:  # each round returns the sum so far, so FSDP must not add it to the previous one
            for parameter in self.parameters:
                parameter.grad = None
