"""Serving: a Ray Serve application around vLLM's engine and its OpenAI protocol. The one door to ray and vllm.

`Service` runs one node: one Ray, one application, one `Replica` with its engine. Nothing here imports ray or vllm until
it is needed, so that `headway --help` stays quick.
"""

from headway.serve.config import ServeConfig
from headway.serve.service import Service

__all__ = ["ServeConfig", "Service"]
