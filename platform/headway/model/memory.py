"""Estimates the device memory that training needs from the recipe, and suggests settings that fit.

Bytes on each of R ranks that share N parameters of L layers by FSDP. T is the number of tokens of a micro-batch, e the
bytes per element in the forward pass (2 in bf16, 4 in fp32).

- state: 16 N / R: parameter, gradient and two moments in fp32;
- gathered: e (N_block + N_ends) for the current block, the embedding and the head, plus the gradient of the block; e N
  instead of the first with `machine.reshard: false`;
- accumulated: 4 N (1 - 1/R) if several micro-batches are summed in fp32 before the reduce-scatter: those of a lane, or
  of all lanes of a rank with `determinism: fast`; 4 N / R for the sum of earlier lanes with `bitwise`;
- activations, saved for the backward pass: L T e times the elements that `activation_checkpointing` saves
  (`saved_elements`), plus all activations of the current block;
- loss: e + 6 bytes for each logit of a chunk (logits and gradient), plus the head's gradient in fp32.

Allocators fragment memory, and kernels have workspaces: `bench/gpu.py` compares the estimate with measurements.
"""

from dataclasses import dataclass, fields

from headway.model.flops import parameter_count
from headway.recipe import Model, Recipe

GIB = 1 << 30
USABLE = 0.94
"""Fraction of a device's memory that tensors can fill; the rest is CUDA's context, workspaces and fragmentation."""
RECOMPUTE = ("none", "selective", "block")


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


def saved_elements(model: Model, recompute: str, *, compiled: bool = False) -> int:
    """Elements per token that one block saves for the backward pass.

    `none` saves the block's input, queries, keys, values, the output of attention, the residual stream after attention,
    gate, up and their product, the outputs of both norms, and rotated queries and keys. `selective` saves the outputs
    of matrix products and attention; compiled code saves these, the residual stream and the outputs of the norms.
    """
    kv_width = model.kv_heads * (model.width // model.heads)
    products = 3 * model.width + 2 * kv_width + model.width + 2 * model.ffn_width + model.width
    if recompute == "block":
        return model.width
    if recompute == "selective":
        return products
    if compiled:
        return products + 3 * model.width
    return products + 3 * model.width + kv_width + 2 * model.ffn_width


def estimate_memory(recipe: Recipe, vocabulary: int, *, ranks: int, half: bool) -> MemoryEstimate:
    """Estimate the memory on each of `ranks`; `half`: the forward pass is in bf16."""
    model, plan = recipe.model, recipe.train
    element = 2 if half else 4
    whole = parameter_count(model, vocabulary)
    ends = vocabulary * model.width * (1 if model.tie_embeddings else 2)
    block = (whole - ends) // model.layers
    gathered = 2 * block + ends if recipe.machine.reshard else whole + block
    rounds, bitwise = -(-plan.lanes // ranks), plan.determinism == "bitwise"
    several = plan.lane_micro_batches * (1 if bitwise else rounds) > 1
    tokens = plan.micro_batch_tokens
    saved = saved_elements(model, plan.activation_checkpointing, compiled=plan.compile)
    saved += (
        0 if half else 2 * (model.width - model.kv_heads * (model.width // model.heads))
    )  # shared heads are repeated
    recomputed = 0 if saved >= saved_elements(model, "none") else saved_elements(model, "none")
    return MemoryEstimate(
        state=16 * whole // ranks,
        gathered=element * gathered if half or ranks > 1 else 0,
        accumulated=4 * whole * (ranks - 1) // ranks * several + 4 * whole // ranks * (bitwise and rounds > 1),
        activations=tokens * element * (model.layers * saved + recomputed),
        loss=min(tokens, plan.loss_chunk_tokens) * vocabulary * (element + 6) + 4 * vocabulary * model.width,
    )


def advice(recipe: Recipe, vocabulary: int, *, ranks: int, half: bool, total: int, device: str) -> str:
    """The error message if a device of `total` bytes is too small: the estimate, and settings that would fit."""
    need = estimate_memory(recipe, vocabulary, ranks=ranks, half=half)
    plan = recipe.train
    fitting = []
    for recompute in RECOMPUTE[RECOMPUTE.index(plan.activation_checkpointing) :]:
        tokens = plan.micro_batch_tokens
        while tokens >= recipe.data.block_tokens:
            changes = {"micro_batch_tokens": tokens, "activation_checkpointing": recompute}
            other = recipe.model_copy(update={"train": plan.model_copy(update=changes)})
            changed = tokens < plan.micro_batch_tokens or recompute != plan.activation_checkpointing
            if changed and estimate_memory(other, vocabulary, ranks=ranks, half=half).total <= USABLE * total:
                fitting.append(f"train.micro_batch_tokens={tokens} train.activation_checkpointing={recompute}")
                break
            tokens = tokens // 2 if tokens // 2 % recipe.data.block_tokens == 0 else 0
    state = f"{need.state / GIB:.1f} GiB are state, {need.activations / GIB:.1f} GiB activations"
    hint = (
        f"what would fit, most memory first: {'; '.join(fitting)}"
        if fitting
        else "no smaller micro-batch would fit: use more ranks, machine.reshard=true, or a smaller model"
    )
    return (
        f"out of memory on {device}, which has {total / GIB:.1f} GiB: {need.total / GIB:.1f} GiB were estimated for "
        f"train.micro_batch_tokens={plan.micro_batch_tokens} train.activation_checkpointing="
        f"{plan.activation_checkpointing} on {ranks} ranks ({state}); {hint}"
    )
