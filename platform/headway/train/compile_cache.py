"""Where compiled code is kept, so that a restart on another node finds it again.

`HEADWAY_CACHE`, else `headway` in the user's cache folder: on a cluster a home is shared by its nodes, and torch's own
default, a folder in /tmp, is not. It is the user's own, for torch reads pickles from it; checkpoints never are in it.
"""

import hashlib
import os
from pathlib import Path

import torch

FOLDER = "HEADWAY_CACHE"
"""Environment: the folder of all that Headway keeps to be faster."""
INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
"""Environment: where torch.compile keeps what it made. Who sets it has chosen."""


def use_compile_cache() -> str | None:
    """Choose the folder of compiled code for this process; returns it, or None where nothing can be written.

    Code for a processor is compiled for that one only (`-march=native`), so each kind has a folder of its own.
    """
    if INDUCTOR not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        parent = Path(os.environ.get(FOLDER) or Path(home, "headway"))
        folder = parent / "inductor" / f"torch-{torch.__version__}-{_processor()}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            return None
        if not os.access(folder, os.W_OK):
            return None
        os.environ[INDUCTOR] = str(folder)
    return os.environ[INDUCTOR]


def _processor() -> str:
    """A digest of this machine's kind of processor: its model and the instructions it knows."""
    first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    telling = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    lines = [line for line in first.splitlines() if line.startswith(telling)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
