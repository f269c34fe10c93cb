"""A Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.

It holds parameters and nothing else: no buffers, no caches. What is built on the meta device is therefore whole as soon
as its parameters are filled (`weights.initialise`), and no cast of a wrapper can touch the rotary tables.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from headway.errors import UsageError
from headway.model.loss import cross_entropy
from headway.recipe import Model


def rotation(tokens: int, head_width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine [tokens, head_width], fp32, of the angle position * theta^(-2i/head_width) (Su et al. 2021).

    Halves repeat, as `rotate_half` in transformers has it, so that weights leave for LlamaForCausalLM unpermuted.
    """
    pairs = torch.arange(0, head_width, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / theta ** (pairs / head_width)
    angles = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns `heads` [B, H, S, Q] by their positions, in fp32, and returns them in the dtype they came in."""
    low, high = heads.float().chunk(2, dim=-1)
    turned = torch.cat((low, high), dim=-1) * cosine + torch.cat((-high, low), dim=-1) * sine
    return turned.to(heads.dtype)


def document_mask(documents: Tensor) -> Tensor:
    """Which key each query may see, [B, 1, S, S] bool: its own and earlier tokens of its own document [B, S].

    It takes B*S*S bytes, and with it scaled_dot_product_attention leaves the flash kernel on CUDA for the
    memory-efficient one and computes the masked half too: about twice the work of causal attention.
    """
    tokens = documents.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & causal).unsqueeze(1)


class Attention(nn.Module):
    """Causal self-attention; `kv_heads` key and value heads are shared among `heads` query heads."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.head_width = model.width // model.heads
        self.theta = model.rope_theta
        self.shares = model.heads // model.kv_heads
        self.query = nn.Linear(model.width, model.heads * self.head_width, bias=False)
        self.key = nn.Linear(model.width, model.kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(model.width, model.kv_heads * self.head_width, bias=False)
        self.output = nn.Linear(model.heads * self.head_width, model.width, bias=False)

    def forward(self, stream: Tensor, mask: Tensor | None) -> Tensor:
        """[B, S, W] to [B, S, W]; `mask` as from `document_mask`, None for plain causal attention."""
        cosine, sine = rotation(stream.shape[1], self.head_width, self.theta, stream.device)
        query = rotate(self._heads(self.query(stream)), cosine, sine)
        key = rotate(self._heads(self.key(stream)), cosine, sine)
        value = self._heads(self.value(stream))
        if mask is not None and self.shares > 1:
            # On CUDA the kernel that takes a mask takes no shared heads; without this it falls back to B*H*S*S scores.
            key, value = (heads.repeat_interleave(self.shares, dim=1) for heads in (key, value))
        seen = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=mask is None and self.shares > 1,
        )
        mixed: Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:-1], -1, self.head_width).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.gate = nn.Linear(model.width, model.ffn_width, bias=False)
        self.up = nn.Linear(model.width, model.ffn_width, bias=False)
        self.down = nn.Linear(model.ffn_width, model.width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """[B, S, W] to [B, S, W]."""
        output: Tensor = self.down(functional.silu(self.gate(stream)) * self.up(stream))
        return output


class Block(nn.Module):
    """One layer: attention, then feed-forward, each behind a norm (fp32 inside) and added to the stream.

    The unit of sharding (`fully_shard`), of compilation (`block.compile()`) and of recomputation: where `recompute` is
    set, only the block's input is kept for the backward pass and the rest is computed again.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.recompute = False
        self.attention_norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.attention = Attention(model)
        self.feed_forward_norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.feed_forward = FeedForward(model)

    def forward(self, stream: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, S, W] to [B, S, W]; `mask` as from `document_mask`."""
        if self.recompute and torch.is_grad_enabled():
            again: Tensor = checkpoint(self._advance, stream, mask, use_reentrant=False, preserve_rng_state=False)
            return again
        return self._advance(stream, mask)

    def _advance(self, stream: Tensor, mask: Tensor | None) -> Tensor:
        stream = stream + self.attention(self.attention_norm(stream), mask)
        advanced: Tensor = stream + self.feed_forward(self.feed_forward_norm(stream))
        return advanced


class Decoder(nn.Module):
    """The whole model, its loss included: under FSDP2 the head and the loss must run inside the root's forward.

    Build it under `torch.device("meta")`, shard it (`fully_shard` on each of `blocks`, then on the root), call
    `to_empty(device=...)`, then `weights.initialise` or load a checkpoint.
    """

    def __init__(self, model: Model, vocabulary: int, loss_chunk_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.loss_chunk_tokens = loss_chunk_tokens
        self.embedding = nn.Embedding(vocabulary, model.width)
        self.blocks = nn.ModuleList(Block(model) for _ in range(model.layers))
        self.norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.head = None if model.tie_embeddings else nn.Linear(model.width, vocabulary, bias=False)

    def forward(self, inputs: Tensor, targets: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
        """The summed loss where `targets` are given, else the logits.

        `inputs`, `targets` [B, S] int64; `documents` [B, S] int32, equal inside a document, keeps attention inside it.
        Returns the sum over all tokens of their cross-entropy [nats], an fp32 scalar; or logits [B, S, V], fp32.
        Raises UsageError where the recipe asks for attention inside documents and the loss is asked without them.
        """
        if targets is not None and documents is None and self.model.attention == "document":
            raise UsageError(
                "the model was asked for a loss without documents, but its recipe says model.attention: document; "
                "pass the document of each token"
            )
        mask = None if documents is None else document_mask(documents)
        stream = self.embedding(inputs)
        for block in self.blocks:
            stream = block(stream, mask)
        stream = self.norm(stream)
        weight = self.embedding.weight if self.head is None else self.head.weight
        if targets is None:
            return functional.linear(stream, weight).float()
        return cross_entropy(stream.flatten(0, 1), weight, targets.flatten(), self.loss_chunk_tokens)
