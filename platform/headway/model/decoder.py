"""A Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.

It holds parameters and nothing else: no buffers, no caches. What is built on the meta device is therefore whole as soon
as its parameters are filled (`weights.initialise`). The rotary tables are computed once a forward pass, in fp32, and
passed to the blocks: a wrapper that casts what a block is called with (FSDP2, `cast_forward_inputs`) must not do so.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from headway.errors import UsageError
from headway.model.attention import Documents, attend
from headway.model.loss import cross_entropy
from headway.model.recompute import Recompute, recomputed
from headway.recipe import Model


def rotation(tokens: int, head_width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine [tokens, 1, head_width], fp32, of the angle position * theta^(-2i/head_width) (Su et al. 2021).

    Halves repeat, as `rotate_half` in transformers has it, so that weights leave for LlamaForCausalLM unpermuted.
    """
    pairs = torch.arange(0, head_width, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / theta ** (pairs / head_width)
    angles = torch.arange(tokens, device=device, dtype=torch.float32)[:, None, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns `heads` [B, S, H, Q] by their positions, in fp32, and returns them in the dtype they came in."""
    wide = heads.float()
    low, high = wide.chunk(2, dim=-1)
    return (wide * cosine + torch.cat((-high, low), dim=-1) * sine).to(heads.dtype)


class Attention(nn.Module):
    """Causal self-attention; `kv_heads` key and value heads are shared among `heads` query heads."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.head_width = model.width // model.heads
        self.query = nn.Linear(model.width, model.heads * self.head_width, bias=False)
        self.key = nn.Linear(model.width, model.kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(model.width, model.kv_heads * self.head_width, bias=False)
        self.output = nn.Linear(model.heads * self.head_width, model.width, bias=False)

    def forward(self, stream: Tensor, cosine: Tensor, sine: Tensor, starts: Tensor | None, longest: int) -> Tensor:
        """[B, S, W] to [B, S, W]; `cosine` and `sine` as from `rotation`, the rest as in `Documents`."""
        query = rotate(self._heads(self.query(stream)), cosine, sine)
        key = rotate(self._heads(self.key(stream)), cosine, sine)
        value = self._heads(self.value(stream))
        mixed: Tensor = self.output(attend(query, key, value, starts, longest).flatten(2))
        return mixed

    def _heads(self, flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:-1], -1, self.head_width)


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

    The unit of sharding (`fully_shard`), of compilation (`block.compile()`) and of recomputation (`recompute`).
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.recompute: Recompute = "none"
        """What the backward pass computes again."""
        self.attention_norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.attention = Attention(model)
        self.feed_forward_norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.feed_forward = FeedForward(model)

    def forward(
        self, stream: Tensor, cosine: Tensor, sine: Tensor, starts: Tensor | None = None, longest: int = 0
    ) -> Tensor:
        """[B, S, W] to [B, S, W]; `cosine` and `sine` as from `rotation`, the rest as in `Documents`."""
        if self.recompute == "none" or not torch.is_grad_enabled():
            return self._advance(stream, cosine, sine, starts, longest)
        return recomputed(self.recompute, self._advance, stream, cosine, sine, starts, longest)

    def _advance(self, stream: Tensor, cosine: Tensor, sine: Tensor, starts: Tensor | None, longest: int) -> Tensor:
        stream = stream + self.attention(self.attention_norm(stream), cosine, sine, starts, longest)
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
        self.compiled = False
        self.embedding = nn.Embedding(vocabulary, model.width)
        self.blocks = nn.ModuleList(Block(model) for _ in range(model.layers))
        self.norm = nn.RMSNorm(model.width, eps=model.norm_eps)
        self.head = None if model.tie_embeddings else nn.Linear(model.width, vocabulary, bias=False)

    def forward(self, inputs: Tensor, targets: Tensor | None = None, documents: Documents | None = None) -> Tensor:
        """The summed loss where `targets` are given, else the logits.

        `inputs`, `targets` [B, S] int64; attention stays inside `documents`, or inside rows where there are none.
        Returns the sum over all tokens of their cross-entropy [nats], an fp32 scalar; or logits [B, S, V], fp32.
        Raises UsageError where the recipe asks for attention inside documents and the loss is asked without them.
        """
        if targets is not None and documents is None and self.model.attention == "document":
            raise UsageError(
                "the model was asked for a loss without documents, but its recipe says model.attention: document; "
                "pass the documents of the batch"
            )
        starts, longest = (documents.starts, documents.longest) if documents else (None, 0)
        if self.compiled and starts is not None:
            from torch._dynamo import mark_dynamic  # slow to import

            mark_dynamic(starts, 0)
        head_width = self.model.width // self.model.heads
        cosine, sine = rotation(inputs.shape[1], head_width, self.model.rope_theta, inputs.device)
        stream = self.embedding(inputs)
        for block in self.blocks:
            stream = block(stream, cosine, sine, starts, longest)
        stream = self.norm(stream)
        weight = self.embedding.weight if self.head is None else self.head.weight
        if targets is None:
            return functional.linear(stream, weight).float()
        return cross_entropy(stream.flatten(0, 1), weight, targets.flatten(), self.loss_chunk_tokens, self.compiled)

    def compile_parts(self) -> None:
        """Compile what is computed most: each block, and the softmax of the loss.

        Each shape has code of its own, but for the number of documents. Else torch would generalise from the shapes
        that it met before, and what a batch is computed with would depend on where the process began.
        """
        self.compiled = True
        for block in self.blocks:
            block.compile(dynamic=False)
