"""Export: writes Hugging Face directories that transformers and vLLM load, quantizes them, and samples from them."""

from headway.export.checkpoint import origin, parameter_bytes, write_checkpoint
from headway.export.directory import write
from headway.export.quantized import INT8, Comparison, quantize
from headway.export.sample import continuation

__all__ = ["INT8", "Comparison", "continuation", "origin", "parameter_bytes", "quantize", "write", "write_checkpoint"]
