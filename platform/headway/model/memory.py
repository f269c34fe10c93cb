"""What training takes of a device's memory, foreseen from the recipe, and what would fit.

Bytes, on each of R ranks that share N parameters by FSDP, of L layers; T are the tokens of a micro-batch, e the bytes
of an element in the forward pass (2 in bf16, 4 in fp32):

- state: 16 N / R: parameter, gradient and two moments in fp32;
- gathered: e (N_block + N_ends) for the block at hand and the ends, or e N with `machine.reshard: false`; twice for the
  block, for its gradient;
- accumulated: 4 N (1 - 1/R) where several micro-batches are summed in fp32 before they are shared out: those of a lane,
  of all of a rank's lanes with `determinism: fast`; 4 N / R for the sum of earlier lanes with `bitwise`;
- activations, kept for the backward pass: L T e times the widths that `activation_checkpointing` keeps, see `kept`; one
  block more for the one that is computed;
- loss: e + 6 bytes for each logit of a chunk (they and their gradient), and the head's gradient in fp32.

Allocators round and cut, kernels have workspaces: `bench/gpu.py` shows what was measured beside this.
"""

from dataclasses import dataclass, fields

from headway.model.flops import parameter_count
from headway.recipe import Model, Recipe

GIB = 1 << 30
USABLE = 0.94
"""Share of a device's memory that tensors can fill: the rest is CUDA's context, workspaces and scraps."""
RECOMPUTE = ("none", "selective", "block")


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, at the moment when most is needed."""

    state: int
    gathered: int
    accumulated: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, each.name) for each in fields(self))


def kept(model: Model, recompute: str, *, compiled: bool = False) -> int:
    """Elements of a token that one block keeps for the backward pass.

    All of them are its input, queries, keys, values, what attention mixed, the stream between the halves, gate, up and
    their product, both norms' results, and rotated queries and keys; `selective` keeps what matrix products and
    attention gave, and so does compiled code, with the stream and its norms beside it.
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


def foresee(recipe: Recipe, vocabulary: int, *, ranks: int, half: bool) -> Memory:
    """What training `recipe` will take on each of `ranks`; `half`: the forward pass is in bf16."""
    model, plan = recipe.model, recipe.train
    element = 2 if half else 4
    whole = parameter_count(model, vocabulary)
    ends = vocabulary * model.width * (1 if model.tie_embeddings else 2)
    block = (whole - ends) // model.layers
    present = 2 * block + ends if recipe.machine.reshard else whole + block
    turns, bitwise = -(-plan.lanes // ranks), plan.determinism == "bitwise"
    several = plan.lane_micro_batches * (1 if bitwise else turns) > 1
    tokens = plan.micro_batch_tokens
    each = kept(model, plan.activation_checkpointing, compiled=plan.compile)
    each += 0 if half else 2 * (model.width - model.kv_heads * (model.width // model.heads))  # heads that are repeated
    widest = 0 if each >= kept(model, "none") else kept(model, "none")
    return Memory(
        state=16 * whole // ranks,
        gathered=element * present if half or ranks > 1 else 0,
        accumulated=4 * whole * (ranks - 1) // ranks * several + 4 * whole // ranks * (bitwise and turns > 1),
        activations=tokens * element * (model.layers * each + widest),
        loss=min(tokens, plan.loss_chunk_tokens) * vocabulary * (element + 6) + 4 * vocabulary * model.width,
    )


def advice(recipe: Recipe, vocabulary: int, *, ranks: int, half: bool, total: int, device: str) -> str:
    """What to say when a device of `total` bytes does not hold `recipe`: what was foreseen, and what would fit."""
    need = foresee(recipe, vocabulary, ranks=ranks, half=half)
    plan = recipe.train
    fitting = []
    for recompute in RECOMPUTE[RECOMPUTE.index(plan.activation_checkpointing) :]:
        tokens = plan.micro_batch_tokens
        while tokens >= recipe.data.block_tokens:
            changes = {"micro_batch_tokens": tokens, "activation_checkpointing": recompute}
            other = recipe.model_copy(update={"train": plan.model_copy(update=changes)})
            changed = tokens < plan.micro_batch_tokens or recompute != plan.activation_checkpointing
            if changed and foresee(other, vocabulary, ranks=ranks, half=half).total <= USABLE * total:
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
        f"out of memory on {device}, which has {total / GIB:.1f} GiB: {need.total / GIB:.1f} GiB were foreseen for "
        f"train.micro_batch_tokens={plan.micro_batch_tokens} train.activation_checkpointing="
        f"{plan.activation_checkpointing} on {ranks} ranks ({state}); {hint}"
    )
