"""Serving: a Ray Serve application around vLLM's engine and its OpenAI API. The one door to ray and vllm.

`Service` runs one node: one Ray, one application, one `Replica` with its engine. Modules load ray and vllm when they
need them, so `headway --help` stays fast.
"""

from headway.serve.config import ServeConfig
from headway.serve.process.service import Service

__all__ = ["ServeConfig", "Service"]
