"""The way out: a Hugging Face directory that transformers and vLLM load as it is, and a look at what it writes."""

from headway.export.checkpoint import origin, size, write_checkpoint
from headway.export.directory import write
from headway.export.quantized import INT8, Likeness, quantize
from headway.export.sample import continuation

__all__ = ["INT8", "Likeness", "continuation", "origin", "quantize", "size", "write", "write_checkpoint"]
