"""Putting the model and its optimizer on this rank: sharded by FSDP2, compiled, with the arithmetic of the recipe."""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from headway.model import Block, Decoder, initialise
from headway.recipe import Recipe
from headway.train import compile_cache
from headway.train.arithmetic import precision


def build(recipe: Recipe, vocabulary: int, device: torch.device) -> Decoder:
    """The sharded model, with its first weights."""
    model = shard(recipe, vocabulary, device)
    initialise(model, recipe.seed)
    return model


def shard(recipe: Recipe, vocabulary: int, device: torch.device) -> Decoder:
    """The sharded model, its weights undefined. Built on no device at first, so no rank ever holds it whole."""
    with torch.device("meta"):
        model = Decoder(recipe.model, vocabulary, recipe.train.loss_chunk_tokens)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    compute = torch.bfloat16 if precision(recipe, device) == "bf16" else None
    if recipe.train.compile:
        compile_cache.use_compile_cache()
        model.compile_parts()
    # Without the casts: the rotary tables, which a block is called with, are fp32.
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        assert isinstance(block, Block)
        block.recompute = recipe.train.activation_checkpointing
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=recipe.machine.reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=recipe.machine.reshard)
    sum_only(model)
    model.to_empty(device=device)
    return model


def sum_only(model: torch.nn.Module) -> None:
    """Make FSDP sum gradients instead of averaging them: the loss is scaled by the batch, not by the world."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


class ShardedAdamW(torch.optim.AdamW):
    """AdamW on this rank's shards themselves: it treats each element alone, so there is nothing to be agreed on.

    On the sharded tensors torch would first work out how each list of them goes through each operation: as long as half
    a step of a small model, once in every process.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[torch.Tensor]) -> Any:
        """Collect parameters, gradients and moments into `lists`, as torch does, but each as what is here of it."""
        answer = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
        return answer


def optimizer(recipe: Recipe, model: torch.nn.Module, device: torch.device) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, its state there from the start."""
    plan = recipe.train.optimizer
    # torch's fused CPU kernel rounds the last few elements of a tensor differently from the others, so where a shard
    # is cut would show in the bits; its foreach kernels, and the fused one of a GPU, treat all elements alike.
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
