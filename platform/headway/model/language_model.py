"""What all architectures share: a module of blocks that computes its own loss."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headway.model.attention import Documents
from headway.model.loss import cross_entropy
from headway.model.recompute import Recompute, run_checkpointed

DEVIATION = 0.02
"""Standard deviation of an initial matrix (Radford et al. 2019, GPT-2)."""


@dataclass(frozen=True)
class Normal:
    """A normal distribution; a constant if its deviation is 0."""

    mean: float = 0.0
    deviation: float = 0.0


class Block(nn.Module):
    """One layer: the unit of sharding (`fully_shard`), of compilation (`block.compile()`) and of recomputation."""

    recompute: Recompute = "none"
    """What the backward pass recomputes."""
    layer: Callable[..., Tensor]
    """The computation, from the residual stream [B, S, W] and further arguments to the new stream."""

    def forward(self, stream: Tensor, *arguments: Any) -> Tensor:
        """Call `layer`, saving for the backward pass only what `recompute` says."""
        if self.recompute == "none" or not torch.is_grad_enabled():
            return self.layer(stream, *arguments)
        return run_checkpointed(self.recompute, self.layer, stream, *arguments)


class LanguageModel(nn.Module):
    """Embedding, blocks, norm and output projection, with the loss: under FSDP2 it must run inside the root's forward.

    It has parameters only, no buffers, so a model from the meta device is complete once its parameters are filled.
    Build it under `torch.device("meta")`, shard it (`fully_shard` on each of `blocks`, then on the root), call
    `to_empty(device=...)`, then call `initialize` or load a checkpoint.
    """

    residual: tuple[str, ...] = ()
    """Ends of the names of matrices that write to the residual stream. Their initial deviation is divided by
    sqrt(2 * layers), so that the variance of the stream does not grow with depth (Radford et al. 2019, section 2.3)."""

    def __init__(
        self, size: tuple[int, int], blocks: Iterable[Block], norm: nn.Module, *, tied: bool, loss_chunk_tokens: int
    ) -> None:
        """`size`: vocabulary and width. `tied`: the embedding is the output projection too."""
        super().__init__()
        self.loss_chunk_tokens = loss_chunk_tokens
        """How many tokens have logits at a time."""
        self.compiled = False
        self.embedding = nn.Embedding(*size)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = None if tied else nn.Linear(size[1], size[0], bias=False)

    def forward(self, inputs: Tensor, targets: Tensor | None = None, documents: Documents | None = None) -> Tensor:
        """The summed loss with `targets`, else the logits.

        `inputs`, `targets` [B, S] int64; there are `documents` if the recipe says so (`Model.needs_documents`).
        Returns the cross-entropy summed over all tokens [nats], an fp32 scalar; or logits [B, S, V], fp32.
        """
        arguments = self.block_arguments(inputs, documents)
        stream = self.embedding(inputs)
        for block in self.blocks:
            stream = block(stream, *arguments)
        stream = self.norm(stream)
        weight = self.embedding.weight if self.head is None else self.head.weight
        if targets is None:
            return functional.linear(stream, weight).float()
        return cross_entropy(stream.flatten(0, 1), weight, targets.flatten(), self.loss_chunk_tokens, self.compiled)

    def block_arguments(self, inputs: Tensor, documents: Documents | None) -> tuple[Any, ...]:  # noqa: ARG002 (overridden)
        """What each block takes besides the stream."""
        return ()

    def initial(self, name: str) -> Normal:
        """The distribution of the initial values of the parameter `name`."""
        if name.endswith("norm.weight"):
            return Normal(mean=1.0)
        if name.endswith(".bias"):
            return Normal()
        return Normal(deviation=DEVIATION / (math.sqrt(2 * len(self.blocks)) if name.endswith(self.residual) else 1.0))

    def compile_parts(self) -> None:
        """Compile what takes most of the time: each block, and the softmax of the loss.

        Each shape has its own code. Otherwise torch would generalize from the shapes seen so far, and the code of a
        batch would depend on where the process started.
        """
        self.compiled = True
        for block in self.blocks:
            block.compile(dynamic=False)
