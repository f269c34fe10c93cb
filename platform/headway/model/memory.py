"""Estimates the device memory that training needs from the recipe, and suggests settings that fit.

Bytes on each of R ranks that share N parameters of L layers by FSDP. T is the number of tokens of a micro-batch, e the
bytes per element in the forward pass (2 in bf16, 4 in fp32).

- state: 4 N (2 + M) / R: parameter, gradient and the M slots of the optimizer (2 for AdamW) in fp32;
- gathered: e (N_block + N_ends) for the current block, the embedding and the head, plus the gradient of the block; e N
  instead of the first with `machine.reshard: false`;
- accumulated: 4 N (1 - 1/R) if several micro-batches are summed in fp32 before the reduce-scatter: those of a lane, or
  of all lanes of a rank with `determinism: fast`; 4 N / R for the sum of earlier lanes with `bitwise`;
- activations, saved for the backward pass: L T e times the elements that `activation_checkpointing` saves
  (`Architecture.saved_elements`), plus all activations of the current block;
- loss: e + 6 bytes for each logit of a chunk (logits and gradient), plus the head's gradient in fp32.

Allocators fragment memory, and kernels have workspaces: `bench/gpu.py` compares the estimate with measurements.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

from headway.errors import UsageError
from headway.model import ARCHITECTURES
from headway.model.recompute import Recompute
from headway.recipe import Recipe

GIB = 1 << 30
USABLE = 0.94
"""Fraction of a device's memory that tensors can fill; the rest is CUDA's context, workspaces and fragmentation."""
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "block")


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes on one rank, by purpose."""

    state: int
    gathered: int
    accumulated: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All device memory that training needs [bytes]."""
        return sum(getattr(self, each.name) for each in fields(self))


def estimate_memory(recipe: Recipe, vocabulary: int, *, ranks: int, half: bool, slots: int = 2) -> MemoryEstimate:
    """Estimate the memory on each of `ranks`.

    `half`: the forward pass is in bf16. `slots`: tensors that the optimizer keeps per parameter.

    Raises:
        UsageError: the architecture does not say what a block saves.
    """
    architecture, plan = ARCHITECTURES[recipe.model.kind], recipe.train
    if architecture.saved_elements is None:
        raise UsageError(f"there is no estimate of memory for model.kind: {recipe.model.kind}")
    model = architecture.on_meta(recipe.model, vocabulary)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    outside = [size for name, size in sizes.items() if not name.startswith("blocks.")]
    whole, ends, layers = sum(sizes.values()), sum(outside), len(model.blocks)
    block = (whole - ends) // layers
    element = 2 if half else 4
    gathered = 2 * block + ends if recipe.machine.reshard else whole + block
    rounds, bitwise = -(-plan.lanes // ranks), plan.determinism == "bitwise"
    several = plan.lane_micro_batches * (1 if bitwise else rounds) > 1
    tokens = plan.micro_batch_tokens
    saved = architecture.saved_elements(recipe.model, plan.activation_checkpointing, compiled=plan.compile, half=half)
    everything = architecture.saved_elements(recipe.model, "none", compiled=False, half=True)
    return MemoryEstimate(
        state=4 * (2 + slots) * whole // ranks,
        gathered=element * gathered if half or ranks > 1 else 0,
        accumulated=4 * whole * (ranks - 1) // ranks * several + 4 * whole // ranks * (bitwise and rounds > 1),
        activations=tokens * element * (layers * saved + (everything if saved < everything else 0)),
        loss=min(tokens, plan.loss_chunk_tokens) * vocabulary * (element + 6) + 4 * max(outside),
    )


def advice(recipe: Recipe, vocabulary: int, *, ranks: int, half: bool, total: int, device: str, slots: int = 2) -> str:
    """The error message if a device of `total` bytes is too small: the estimate, and settings that would fit."""
    plan, estimate = recipe.train, partial(estimate_memory, vocabulary=vocabulary, ranks=ranks, half=half, slots=slots)
    settings = f"{_settings(plan.micro_batch_tokens, plan.activation_checkpointing)} on {ranks} ranks"
    problem = f"out of memory on {device}, which has {total / GIB:.1f} GiB"
    if ARCHITECTURES[recipe.model.kind].saved_elements is None:
        return (
            f"{problem}, with {settings}; use a smaller train.micro_batch_tokens, "
            f"train.activation_checkpointing=block, more ranks, machine.reshard=true, or a smaller model"
        )
    need = estimate(recipe)
    fitting = fitting_settings(recipe, lambda other: estimate(other).total <= USABLE * total)
    hint = (
        f"what would fit, most memory first: {'; '.join(fitting)}"
        if fitting
        else "no smaller micro-batch would fit: use more ranks, machine.reshard=true, or a smaller model"
    )
    return (
        f"{problem}: {need.total / GIB:.1f} GiB were estimated for {settings} "
        f"({need.state / GIB:.1f} GiB are state, {need.activations / GIB:.1f} GiB activations); {hint}"
    )


def fitting_settings(recipe: Recipe, fits: Callable[[Recipe], bool]) -> list[str]:
    """For each level of recomputation the largest smaller micro-batch with which the recipe `fits`."""
    plan, fitting = recipe.train, []
    for recompute in RECOMPUTE[RECOMPUTE.index(plan.activation_checkpointing) :]:
        tokens = plan.micro_batch_tokens
        while tokens >= recipe.data.block_tokens:
            changes = {"micro_batch_tokens": tokens, "activation_checkpointing": recompute}
            other = recipe.model_copy(update={"train": plan.model_copy(update=changes)})
            changed = tokens < plan.micro_batch_tokens or recompute != plan.activation_checkpointing
            if changed and fits(other):
                fitting.append(_settings(tokens, recompute))
                break
            tokens = tokens // 2 if tokens // 2 % recipe.data.block_tokens == 0 else 0
    return fitting


def _settings(micro_batch_tokens: int, recompute: Recompute) -> str:
    return f"train.micro_batch_tokens={micro_batch_tokens} train.activation_checkpointing={recompute}"
