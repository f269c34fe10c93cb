"""The model: a Llama-shaped decoder, its first weights, its cost and its Hugging Face names."""

from headway.model.attention import Documents
from headway.model.decoder import Block, Decoder
from headway.model.flops import Flops, flops_per_token, parameter_count
from headway.model.weights import initialise

__all__ = ["Block", "Decoder", "Documents", "Flops", "flops_per_token", "initialise", "parameter_count"]
