"""The Llama architecture: the decoder, its cost, and its format in Hugging Face."""

from headway.model.architecture import Architecture, HuggingFaceFormat
from headway.model.llama import huggingface
from headway.model.llama.cost import flops_per_token, saved_elements
from headway.model.llama.decoder import Decoder
from headway.recipe import Llama

LLAMA: Architecture[Llama] = Architecture(
    build=Decoder,
    flops=flops_per_token,
    saved_elements=saved_elements,
    huggingface=HuggingFaceFormat(huggingface.name, huggingface.configuration),
)
