"""The way out: a Hugging Face directory that transformers and vLLM load as it is, and a look at what it writes."""

from headway.export.checkpoint import origin, size, write_checkpoint
from headway.export.directory import write
from headway.export.sample import continuation

__all__ = ["continuation", "origin", "size", "write", "write_checkpoint"]
