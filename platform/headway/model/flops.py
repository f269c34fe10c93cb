"""The cost of training: parameters, and floating-point operations per token, by the formula of PaLM.

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

from dataclasses import dataclass

from headway.recipe import Model


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one token, forward and backward."""

    blocks: int
    """Matrices of the blocks."""
    head: int
    """Output projection."""
    attention: int
    """Scores and weighted values, the causal half."""

    @property
    def total(self) -> int:
        """All floating-point operations per token."""
        return self.blocks + self.head + self.attention


def flops_per_token(model: Model, vocabulary: int, sequence_tokens: int) -> Flops:
    """Operations to train on one token of a sequence of `sequence_tokens`, counted as in the module's docstring."""
    return Flops(
        blocks=6 * model.layers * _block_matrices(model),
        head=6 * vocabulary * model.width,
        attention=6 * model.layers * model.width * sequence_tokens,
    )


def parameter_count(model: Model, vocabulary: int) -> int:
    """Number of parameters; tied embedding and head count once."""
    ends = vocabulary * model.width * (1 if model.tie_embeddings else 2)
    norms = model.width * (2 * model.layers + 1)
    return ends + norms + model.layers * _block_matrices(model)


def _block_matrices(model: Model) -> int:
    kv_width = model.kv_heads * (model.width // model.heads)
    attention = 2 * model.width * model.width + 2 * model.width * kv_width
    return attention + 3 * model.width * model.ffn_width
