"""What training costs: parameters, and floating-point operations per token, by the formula of PaLM.

Chowdhery et al. 2022, appendix B: a token costs 6 N + 12 L H Q T, where N counts parameters, L layers, H heads, Q the
width of a head and T the tokens of a sequence. A multiplication and its addition are two operations; the backward pass
is twice the forward pass. Counted here is what the loss needs and no more, as for model FLOPs utilisation (MFU):

- each matrix of the blocks: 6 per parameter. Norms are left out (no matrix product), and so is the embedding (a
  look-up);
- the head: 6 per parameter of the output projection, also where it is the embedding matrix;
- attention: half of 12 L H Q T, because a causal token sees (T + 1)/2 keys on average, taken as T/2. PaLM counts the
  whole square; figures of others may be higher by this term for the same speed.

Not counted: softmax, norms, rotations and the optimizer; anything computed twice (`activation_checkpointing`, the flash
kernel's backward pass); the saving of attention inside documents. Loss in chunks computes nothing twice.
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
    """Scores and their mixture, the causal half."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.blocks + self.head + self.attention


def flops_per_token(model: Model, vocabulary: int, sequence_tokens: int) -> Flops:
    """Operations to train on one token of a sequence of `sequence_tokens`, as this module's docstring counts them."""
    return Flops(
        blocks=6 * model.layers * _block_matrices(model),
        head=6 * vocabulary * model.width,
        attention=6 * model.layers * model.width * sequence_tokens,
    )


def parameter_count(model: Model, vocabulary: int) -> int:
    """All parameters; embedding and head count once where they are tied."""
    ends = vocabulary * model.width * (1 if model.tie_embeddings else 2)
    norms = model.width * (2 * model.layers + 1)
    return ends + norms + model.layers * _block_matrices(model)


def _block_matrices(model: Model) -> int:
    kv_width = model.kv_heads * (model.width // model.heads)
    attention = 2 * model.width * model.width + 2 * model.width * kv_width
    return attention + 3 * model.width * model.ffn_width
