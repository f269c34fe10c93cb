"""The model: a Llama-shaped decoder, its initial weights, its cost, and its names in Hugging Face."""

from headway.model.attention import Documents
from headway.model.decoder import Block, Decoder
from headway.model.flops import Flops, flops_per_token, parameter_count
from headway.model.weights import initialize

__all__ = ["Block", "Decoder", "Documents", "Flops", "flops_per_token", "initialize", "parameter_count"]
