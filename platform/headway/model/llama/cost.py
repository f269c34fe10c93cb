"""The cost of training: floating-point operations per token by the formula of PaLM, and saved activations.

Chowdhery et al. 2022, appendix B: a token costs 6 N + 12 L H Q T, where N counts parameters, L layers, H heads, Q the
width of a head and T the tokens of a sequence. A multiplication and its addition are two operations; the backward pass
costs twice the forward pass. As for model FLOPs utilization (MFU), only what the loss needs counts:

- each matrix of the blocks: 6 per parameter. Norms (no matrix product) and the embedding (a look-up) do not count;
- the head: 6 per parameter of the output projection, even if it is the embedding matrix;
- attention: half of 12 L H Q T, because a causal token sees (T + 1)/2 keys on average, taken as T/2. PaLM counts the
  whole square, so other tools may report higher figures for the same speed.

Not counted: softmax, norms, rotations and the optimizer; recomputation (`activation_checkpointing`, the backward pass
of flash attention). Attention inside documents counts as if each sequence were one document. The loss in chunks
recomputes nothing.
"""

from headway.model.architecture import Flops
from headway.model.recompute import Recompute
from headway.recipe import Llama


def flops_per_token(model: Llama, vocabulary: int, sequence_tokens: int) -> Flops:
    """Operations to train on one token of a sequence of `sequence_tokens`, counted as in the module's docstring."""
    return Flops(
        blocks=6 * model.layers * _block_matrices(model),
        head=6 * vocabulary * model.width,
        attention=6 * model.layers * model.width * sequence_tokens,
    )


def saved_elements(model: Llama, recompute: Recompute, *, compiled: bool, half: bool) -> int:
    """Elements per token that one block saves for the backward pass.

    `none` saves the block's input, queries, keys, values, the output of attention, the residual stream after attention,
    gate, up and their product, the outputs of both norms, and rotated queries and keys. `selective` saves the outputs
    of matrix products and attention; compiled code saves these, the residual stream and the outputs of the norms. In
    fp32 shared heads are repeated.
    """
    kv_width = model.kv_heads * (model.width // model.heads)
    repeated = 0 if half else 2 * (model.width - kv_width)
    products = 3 * model.width + 2 * kv_width + model.width + 2 * model.ffn_width + model.width
    if recompute == "block":
        return model.width + repeated
    if recompute == "selective":
        return products + repeated
    if compiled:
        return products + 3 * model.width + repeated
    return products + 3 * model.width + kv_width + 2 * model.ffn_width + repeated


def _block_matrices(model: Llama) -> int:
    kv_width = model.kv_heads * (model.width // model.heads)
    attention = 2 * model.width * model.width + 2 * model.width * kv_width
    return attention + 3 * model.width * model.ffn_width
