"""The cache of compiled code, kept so that a restart on another node finds it.

It lies in Headway's cache folder: by default in the user's home, which the nodes of a cluster share, unlike torch's own
default in /tmp. It belongs to the user, because torch reads pickles from it. Checkpoints are never in it.
"""

import os

import torch

from headway.errors import UsageError
from headway.localfiles import cache_folder, private_folder
from headway.train.compute.cpu import processor_digest

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: the cache folder of torch.compile. If the user sets it, Headway keeps it."""


def use_compile_cache() -> str | None:
    """Choose the cache folder of torch.compile for this process; returns it, or None if it cannot be written.

    Code for a CPU is compiled for that very model (`-march=native`), so each model has its own folder.

    Raises:
        UsageError: other users may write to the folder: torch would run what they put there.
    """
    if INDUCTOR not in os.environ:
        try:
            root = cache_folder()
        except UsageError:
            return None
        try:
            folder = private_folder(root / "inductor" / f"torch-{torch.__version__}-{processor_digest()}", root)
        except OSError:
            return None
        if not os.access(folder, os.W_OK):
            return None
        os.environ[INDUCTOR] = str(folder)
    return os.environ[INDUCTOR]
