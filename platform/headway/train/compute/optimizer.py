"""The optimizer: AdamW on the local shards of a rank."""

from typing import Any

import torch
from torch.distributed.tensor import DTensor

from headway.recipe import Recipe


class ShardedAdamW(torch.optim.AdamW):
    """AdamW on this rank's local shards. AdamW is elementwise, so the ranks need not communicate.

    On DTensors torch would first derive the sharding of each operation, once per process, which takes half as long as a
    step of a small model.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[torch.Tensor]) -> Any:
        """Collect parameters, gradients and moments into `lists` as torch does, each as its local shard."""
        result = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
        return result


def build_optimizer(recipe: Recipe, model: torch.nn.Module, device: torch.device) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only; its state is allocated at once."""
    plan = recipe.train.optimizer
    # torch's fused CPU kernel rounds the last few elements of a tensor differently, so bits would depend on where a
    # shard ends. Its foreach kernels, and the fused kernel of a GPU, treat all elements alike.
    fused = device.type == "cuda" or recipe.train.determinism == "fast"
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    adam = ShardedAdamW(
        [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=plan.learning_rate,
        betas=(plan.betas[0], plan.betas[1]),
        eps=plan.eps,
        fused=fused,
        foreach=not fused,
    )
    for parameter in model.parameters():
        adam.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return adam
