"""A model with 8-bit weights and activations, in the format of compressed-tensors, which vLLM serves as it is.

Weights are rounded to the nearest of 255 steps of each output channel, activations token by token while the model runs;
embeddings and the output layer stay as they were. No data is needed for it.
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
from headway.export.sample import load, quiet

INT8 = "W8A8"
"""The scheme, as compressed-tensors calls it."""
COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "README.md")
TEXTS, LENGTH, SEED = 16, 128, 0
"""Texts by which the two are compared, their length [tokens], and the seed with which the original writes them."""


@dataclass(frozen=True)
class Likeness:
    """How a quantized model compares with its original, on texts that the original wrote."""

    positions: int
    """How many next tokens were compared."""
    agreement: float
    """Share of them of which both find the same token the likeliest."""
    loss: float
    """Of the quantized model [nats per token]."""
    original_loss: float
    """Of the original [nats per token]."""
    bytes: int
    """Weights of the quantized model."""
    original_bytes: int
    """Weights of the original."""


def quantize(original: Path, directory: Path) -> Likeness:
    """Write the quantized model of `original` to `directory`, a new one; returns how alike they are.

    Raises:
        UsageError: the directory holds something, or the model has been quantized before.
    """
    from compressed_tensors.compressors import ModelCompressor

    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty; name a new directory")
    if not _bytes(original):
        load(original)
        raise UsageError(f"{original} has no weights in safetensors; export it anew with headway export")
    model = load(original)
    if hasattr(model.config, "quantization_config"):
        raise UsageError(f"{original} is quantized already; quantize the model that it was made from")
    texts = _written(model)
    before = _logits(model, texts)
    _round(model)
    after = _logits(model, texts)
    compressor = ModelCompressor.from_pretrained_model(model)
    with quiet(), redirect_stderr(io.StringIO()):  # it has progress bars of its own
        compressor.compress_model(model)
        model.save_pretrained(directory)
    compressor.update_config(str(directory))
    for name in COPIED:
        if (original / name).is_file():
            shutil.copyfile(original / name, directory / name)
    return Likeness(
        positions=texts[:, 1:].numel(),
        agreement=float((before.argmax(-1) == after.argmax(-1)).double().mean()),
        loss=_loss(after, texts),
        original_loss=_loss(before, texts),
        bytes=_bytes(directory),
        original_bytes=_bytes(original),
    )


def _round(model: Any) -> None:
    """Attach the scheme to every linear layer but the last, with scales from the weights alone."""
    from compressed_tensors.quantization import (
        QuantizationConfig,
        QuantizationStatus,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme = preset_name_to_scheme(INT8, ["Linear"])
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    for module in _quantized(model):
        low, high = module.weight.detach().aminmax(dim=1, keepdim=True)
        scale, zero = calculate_qparams(low, high, module.quantization_scheme.weights)
        module.weight_scale.data.copy_(scale)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero)
        module.quantization_status = QuantizationStatus.FROZEN


def _quantized(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "quantization_scheme"))


def _written(model: Any) -> torch.Tensor:
    """Texts that the model writes by itself, from the end of a document on: what it will be asked for, more or less."""
    length = min(LENGTH, model.config.max_position_embeddings)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(SEED)
        ends = model.config.eos_token_id
        start = torch.full((TEXTS, 1), ends[0] if isinstance(ends, list) else ends or 0)
        texts: torch.Tensor = model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, min_length=length, max_length=length
        )
    return texts


@torch.inference_mode()
def _logits(model: Any, texts: torch.Tensor) -> torch.Tensor:
    """What the model thinks of each next token: (texts, positions, vocabulary)."""
    logits: torch.Tensor = model(texts).logits[:, :-1].float()
    return logits


def _loss(logits: torch.Tensor, texts: torch.Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten()))


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))
