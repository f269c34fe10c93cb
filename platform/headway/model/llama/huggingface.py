"""The decoder as LlamaForCausalLM of transformers: configuration and parameter names."""

from typing import Any

from headway.errors import UsageError
from headway.recipe import Llama

ENDS = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
IN_BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}


def name(parameter: str) -> str:
    """The name in LlamaForCausalLM of a decoder parameter.

    Raises:
        UsageError: the decoder has no such parameter.
    """
    if parameter in ENDS:
        return ENDS[parameter]
    blocks, _, rest = parameter.partition(".")
    layer, _, part = rest.partition(".")
    if blocks != "blocks" or not layer.isdecimal() or part not in IN_BLOCK:
        raise UsageError(
            f"{parameter} is not a parameter of the decoder; pass the names that named_parameters() gives, "
            "without a wrapper's prefix"
        )
    return f"model.layers.{layer}.{IN_BLOCK[part]}"


def configuration(
    model: Llama, vocabulary: int, block_tokens: int, end_of_document: int, dtype: str = "float32"
) -> dict[str, Any]:
    """The config.json of `model`, trained on blocks of `block_tokens`. `end_of_document` is both BOS and EOS token.

    RoPE and dtype appear twice, under their keys in transformers 4 and in transformers 5.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": model.width,
        "intermediate_size": model.ffn_width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.width // model.heads,
        "hidden_act": "silu",
        "max_position_embeddings": block_tokens,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
