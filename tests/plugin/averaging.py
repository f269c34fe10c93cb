"""A decoder without attention: each token sees the mean of all tokens up to it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from headway.model import Architecture, Block, LanguageModel

from .averaging_settings import Averaging


class AveragingBlock(Block):
    """A feed-forward layer of the token and of the mean of all tokens up to it."""

    def __init__(self, model: Averaging) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(model.width)
        self.inner = nn.Linear(2 * model.width, model.inner_width)
        self.outer = nn.Linear(model.inner_width, model.width)

    def layer(self, stream: Tensor) -> Tensor:
        """[B, S, W] to [B, S, W]."""
        tokens = self.norm(stream)
        counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        output: Tensor = self.outer(functional.gelu(self.inner(torch.cat((tokens, tokens.cumsum(1) / counts), -1))))
        return stream + output


class AveragingModel(LanguageModel):
    """The whole model."""

    residual = ("outer.weight",)

    def __init__(self, model: Averaging, vocabulary: int, loss_chunk_tokens: int) -> None:
        blocks = [AveragingBlock(model) for _ in range(model.layers)]
        norm = nn.LayerNorm(model.width)
        super().__init__((vocabulary, model.width), blocks, norm, tied=True, loss_chunk_tokens=loss_chunk_tokens)


AVERAGING: Architecture[Averaging] = Architecture(build=AveragingModel)
