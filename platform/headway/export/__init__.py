"""The way out: a Hugging Face directory that transformers and vLLM load as it is, and a look at what it writes."""

from headway.export.directory import write
from headway.export.sample import continuation

__all__ = ["continuation", "write"]
