"""Quantizes a model to 8-bit weights and activations (W8A8), in the compressed-tensors format that vLLM serves.

Weights are rounded to the nearest of 255 steps per output channel; activations are quantized per token at run time.
Embeddings and the output layer keep their type. No calibration data is needed.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headway.errors import UsageError
from headway.export.directory import refuse_occupied, replacing_folder
from headway.export.sample import errors_named, load, quiet, weight_bytes
from headway.registry.model_folder import check_model_folder

INT8 = "W8A8"
"""Name of the scheme in compressed-tensors."""
COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "README.md")
TEXTS, LENGTH, SEED = 16, 128, 0
"""Number of sampled texts for the comparison, their length [tokens], and the sampling seed."""


@dataclass(frozen=True)
class Comparison:
    """A quantized model compared with its original, on texts sampled from the original."""

    positions: int
    """Number of next tokens compared."""
    agreement: float
    """Share of positions where both models predict the same most likely token."""
    loss: float
    """Loss of the quantized model [nats per token]."""
    original_loss: float
    """Loss of the original [nats per token]."""
    bytes: int
    """Size of the quantized weights [bytes]."""
    original_bytes: int
    """Size of the original weights [bytes]."""


def quantize(original: Path, directory: Path) -> Comparison:
    """Quantize the model in `original` to `directory`; returns a comparison of the two.

    Raises:
        HeadwayError: `directory` cannot be written; nothing is left there.
        UsageError: `directory` is not empty, or `original` is quantized already or holds no safetensors weights.
    """
    from compressed_tensors.compressors import ModelCompressor

    refuse_occupied(directory)
    if check_model_folder(original).get("quantization_config"):
        raise UsageError(f"{original} is quantized already; quantize the original model")
    if not weight_bytes(original):
        raise UsageError(f"{original} has no weights in safetensors; export it again with headway export")
    model = load(original)
    with errors_named(original):
        texts = _sample_texts(model)
        before = _logits(model, texts)
    _round_weights(model)
    after = _logits(model, texts)
    compressor = ModelCompressor.from_pretrained_model(model)
    with replacing_folder(directory) as folder:
        with quiet(), redirect_stderr(io.StringIO()):  # compressed-tensors shows its own progress bars
            compressor.compress_model(model)
            model.save_pretrained(folder)
        compressor.update_config(str(folder))
        for name in COPIED:
            if (original / name).is_file():
                shutil.copyfile(original / name, folder / name)
    return Comparison(
        positions=texts[:, 1:].numel(),
        agreement=float((before.argmax(-1) == after.argmax(-1)).double().mean()),
        loss=_loss(after, texts),
        original_loss=_loss(before, texts),
        bytes=weight_bytes(directory),
        original_bytes=weight_bytes(original),
    )


def _round_weights(model: Any) -> None:
    """Attach the scheme to every linear layer except the output layer, with scales from the weights."""
    from compressed_tensors.quantization import (
        QuantizationConfig,
        QuantizationStatus,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme = preset_name_to_scheme(INT8, ["Linear"])
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    for module in _quantized_modules(model):
        low, high = module.weight.detach().aminmax(dim=1, keepdim=True)
        scale, zero = calculate_qparams(low, high, module.quantization_scheme.weights)
        module.weight_scale.data.copy_(scale)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero)
        module.quantization_status = QuantizationStatus.FROZEN


def _quantized_modules(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "quantization_scheme"))


def _sample_texts(model: Any) -> torch.Tensor:
    """Texts sampled from the model, [texts, length]. Each starts with an end-of-document token.

    Raises:
        UsageError: the model has no such token, or no room for two tokens.
    """
    from transformers import GenerationConfig

    config = model.config
    length, end = min(LENGTH, getattr(config, "max_position_embeddings", LENGTH)), _end_token(config)
    if length < 2:
        raise UsageError(f"max_position_embeddings of the model is {length}; a text has two tokens or more")
    stored, model.generation_config = model.generation_config, GenerationConfig(eos_token_id=end, pad_token_id=end)
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(SEED)
            start = torch.full((TEXTS, 1), end)
            texts: torch.Tensor = model.generate(
                start, attention_mask=torch.ones_like(start), do_sample=True, min_length=length, max_length=length
            )
    finally:
        model.generation_config = stored
    return texts


def _end_token(config: Any) -> int:
    """The token that ends a document, 0 if the configuration names none."""
    ends = config.eos_token_id
    end = (ends[0] if ends else None) if isinstance(ends, list) else ends
    if end is None:
        return 0
    if not isinstance(end, int) or not 0 <= end < config.vocab_size:
        raise UsageError(f"eos_token_id of the model is {end!r}, which is not a token of its {config.vocab_size:,}")
    return end


@torch.inference_mode()
def _logits(model: Any, texts: torch.Tensor) -> torch.Tensor:
    """Next-token logits, [texts, positions, vocabulary]."""
    logits: torch.Tensor = model(texts).logits[:, :-1].float()
    return logits


def _loss(logits: torch.Tensor, texts: torch.Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten()))
