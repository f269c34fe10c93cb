"""Loaded by every Python process whose PYTHONPATH has this folder: a training rank that unpickles an object dies."""

import os
import sys
from typing import Any


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse `pickle.find_class`, which every unpickling of an object needs, once torchelastic has made this a rank."""
    if event == "pickle.find_class" and "RANK" in os.environ and "TORCHELASTIC_RUN_ID" in os.environ:
        raise RuntimeError(f"unpickling of {'.'.join(map(str, arguments))} is forbidden here")


sys.addaudithook(forbid)
