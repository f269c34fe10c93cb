"""Loaded by a vLLM worker of Ray Serve LLM, which dies of its first AMX tile if nobody has asked Linux for them."""

import torch

torch.cpu._init_amx()  # noqa: SLF001 - there is no public way


class Extension:
    """Adds nothing to the worker: to load it is enough."""
