"""A Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.

Each forward pass computes the rotary tables once, in fp32, and passes them to the blocks; a wrapper must not cast these
inputs (FSDP2, `cast_forward_inputs`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headway.errors import UsageError
from headway.model.attention import Documents, attend
from headway.model.language_model import Block, LanguageModel
from headway.recipe import Llama


def rotary_tables(tokens: int, head_width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine [tokens, 1, head_width], fp32, of the angles position * theta^(-2i/head_width) (Su et al. 2021).

    The halves repeat, as for `rotate_half` in transformers, so that LlamaForCausalLM needs no permuted weights.
    """
    pairs = torch.arange(0, head_width, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / theta ** (pairs / head_width)
    angles = torch.arange(tokens, device=device, dtype=torch.float32)[:, None, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate `heads` [B, S, H, Q] by their positions, in fp32; returns them in their own dtype."""
    precise = heads.float()
    low, high = precise.chunk(2, dim=-1)
    return (precise * cosine + torch.cat((-high, low), dim=-1) * sine).to(heads.dtype)


class Attention(nn.Module):
    """Causal self-attention; `heads` query heads share `kv_heads` key and value heads."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.head_width = model.width // model.heads
        self.query = nn.Linear(model.width, model.heads * self.head_width, bias=False)
        self.key = nn.Linear(model.width, model.kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(model.width, model.kv_heads * self.head_width, bias=False)
        self.output = nn.Linear(model.heads * self.head_width, model.width, bias=False)

    def forward(self, stream: Tensor, cosine: Tensor, sine: Tensor, starts: Tensor | None, longest: int) -> Tensor:
        """[B, S, W] to [B, S, W]; `cosine` and `sine` as from `rotary_tables`, the rest as in `Documents`."""
        query = rotate(self._heads(self.query(stream)), cosine, sine)
        key = rotate(self._heads(self.key(stream)), cosine, sine)
        value = self._heads(self.value(stream))
        output: Tensor = self.output(attend(query, key, value, starts, longest).flatten(2))
        return output

    def _heads(self, flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:-1], -1, self.head_width)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.gate = nn.Linear(model.width, model.ffn_width, bias=False)
        self.up = nn.Linear(model.width, model.ffn_width, bias=False)
        self.down = nn.Linear(model.ffn_width, model.width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """[B, S, W] to [B, S, W]."""
        output: Tensor = self.down(functional.silu(self.gate(stream)) * self.up(stream))
        return output


class DecoderBlock(Block):
    """One layer: attention, then feed-forward, each after a norm (fp32 inside) and added to the residual stream."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.attention = Attention(model)
        self.feed_forward_norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.feed_forward = FeedForward(model)

    def layer(
        self, stream: Tensor, cosine: Tensor, sine: Tensor, starts: Tensor | None = None, longest: int = 0
    ) -> Tensor:
        """[B, S, W] to [B, S, W]; `cosine` and `sine` as from `rotary_tables`, the rest as in `Documents`."""
        stream = stream + self.attention(self.attention_norm(stream), cosine, sine, starts, longest)
        output: Tensor = stream + self.feed_forward(self.feed_forward_norm(stream))
        return output


class Decoder(LanguageModel):
    """The whole model with its loss."""

    residual = ("attention.output.weight", "feed_forward.down.weight")

    def __init__(self, model: Llama, vocabulary: int, loss_chunk_tokens: int) -> None:
        super().__init__(
            (vocabulary, model.width),
            [DecoderBlock(model) for _ in range(model.layers)],
            nn.RMSNorm(model.width, eps=model.norm_eps),
            tied=model.tie_embeddings,
            loss_chunk_tokens=loss_chunk_tokens,
        )
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor | None = None, documents: Documents | None = None) -> Tensor:
        """The loss or the logits, as from `LanguageModel`; attention stays inside `documents`, or else inside rows.

        Raises:
            UsageError: the recipe requires attention inside documents, and a loss is computed without `documents`.
        """
        if targets is not None and documents is None and self.model.needs_documents:
            raise UsageError(
                "the loss needs documents, because the recipe says model.attention: document; "
                "pass the documents of the batch"
            )
        return super().forward(inputs, targets, documents)

    def block_arguments(self, inputs: Tensor, documents: Documents | None) -> tuple[Any, ...]:
        """Rotary tables and documents. With torch.compile, the number of documents needs no code of its own."""
        starts, longest = (documents.starts, documents.longest) if documents else (None, 0)
        if self.compiled and starts is not None:
            from torch._dynamo import mark_dynamic  # slow to import

            mark_dynamic(starts, 0)
        head_width = self.model.width // self.model.heads
        cosine, sine = rotary_tables(inputs.shape[1], head_width, self.model.rope_theta, inputs.device)
        return cosine, sine, starts, longest
