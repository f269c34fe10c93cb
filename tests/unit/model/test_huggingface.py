"""The decoder has the parameter names of transformers."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from headway.errors import UsageError
from headway.model.llama import huggingface
from headway.model.llama.decoder import Decoder
from headway.recipe import Llama


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_the_name_and_shape_that_transformers_expects(tied: bool) -> None:  # noqa: FBT001 (a case, not a switch)
    """Our parameters, renamed, are LlamaForCausalLM's, one for one."""
    shape = Llama(layers=2, width=32, heads=4, kv_heads=2, ffn_width=48, tie_embeddings=tied)
    with torch.device("meta"):
        ours = Decoder(shape, 64, loss_chunk_tokens=8)
        theirs = LlamaForCausalLM(LlamaConfig(**huggingface.configuration(shape, 64, 16, 0)))
    assert {huggingface.name(name): value.shape for name, value in ours.named_parameters()} == {
        name: value.shape for name, value in theirs.named_parameters()
    }


@pytest.mark.parametrize("name", ["_orig_mod.norm.weight", "blocks.x.attention_norm.weight", "blocks.0.bias", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    """An unknown parameter name is refused."""
    with pytest.raises(UsageError, match="not a parameter"):
        huggingface.name(name)
