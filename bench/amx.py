"""Enables AMX tiles in a vLLM worker of Ray Serve LLM, which otherwise dies at its first AMX instruction."""

import torch

torch.cpu._init_amx()  # noqa: SLF001 - torch has no public function


class Extension:
    """A worker extension without methods; importing this module is enough."""
