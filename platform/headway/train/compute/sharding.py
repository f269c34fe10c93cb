"""Builds this rank's part of the model: sharded by FSDP2, and compiled if the recipe says so."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from headway.model import ARCHITECTURES, Block, LanguageModel, initialize
from headway.recipe import Recipe
from headway.train.compute import compile_cache
from headway.train.compute.arithmetic import precision


def build_model(recipe: Recipe, vocabulary: int, device: torch.device) -> LanguageModel:
    """The sharded model, with its initial weights."""
    model = shard_model(recipe, vocabulary, device)
    initialize(model, recipe.seed)
    return model


def shard_model(recipe: Recipe, vocabulary: int, device: torch.device) -> LanguageModel:
    """The sharded model with undefined weights. Built on the meta device, so that no rank ever holds all of it."""
    architecture = ARCHITECTURES[recipe.model.kind]
    model = architecture.on_meta(recipe.model, vocabulary, recipe.train.loss_chunk_tokens)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    compute = torch.bfloat16 if precision(recipe, device) == "bf16" else None
    if recipe.train.compile:
        compile_cache.use_compile_cache()
        model.compile_parts()
    # No casts of inputs: rotary tables, which are inputs of a block, stay fp32.
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        assert isinstance(block, Block)
        block.recompute = recipe.train.activation_checkpointing
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=recipe.machine.reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=recipe.machine.reshard)
    sum_gradients(model)
    model.to_empty(device=device)
    return model


def sum_gradients(model: torch.nn.Module) -> None:
    """Make FSDP sum gradients instead of averaging them: the loss is scaled by the batch size, not the world size."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
