"""The formula for training FLOPs agrees with a count of the operations."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from headway.model.llama import LLAMA
from headway.model.llama.cost import flops_per_token
from headway.model.llama.decoder import Decoder
from headway.recipe import Llama


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_formula_counts_the_matrix_products_that_there_are(tied: bool, kv_heads: int) -> None:  # noqa: FBT001 (a case, not a switch)
    """Blocks and head equal torch's count exactly; attention is half of it, because torch counts the whole square."""
    shape = Llama(layers=3, width=48, heads=4, kv_heads=kv_heads, ffn_width=80, tie_embeddings=tied)
    vocabulary, rows, length = 96, 2, 32
    model = Decoder(shape, vocabulary, 24)
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens, tokens).backward()
    cost = flops_per_token(shape, vocabulary, length)
    assert counter.get_total_flops() == rows * length * (cost.blocks + cost.head + 2 * cost.attention)
    assert cost.total == cost.blocks + cost.head + cost.attention


def test_formula_gives_the_published_figure_of_llama_2_7b() -> None:
    """Llama 2 7B has 6,738,415,616 parameters (Touvron et al. 2023); 6 of each but the embedding, and the triangle."""
    shape = Llama(layers=32, width=4096, heads=32, kv_heads=32, ffn_width=11008)
    parameters = LLAMA.parameter_count(shape, 32_000)
    assert parameters == 6_738_415_616
    matrices = parameters - 32_000 * 4096 - 65 * 4096
    assert flops_per_token(shape, 32_000, 4096).total == 6 * matrices + 12 * 32 * 4096 * 4096 // 2
