"""Which files a model may have: safetensors, JSON, text and tokenizers. Nothing that runs code when it is loaded."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from headway.errors import UsageError

MANIFEST = "manifest.json"
"""The registry's own, beside the files."""
KINDS = (".safetensors", ".json", ".jinja", ".md", ".model", ".txt")
"""What a file's name may end in; `.model` is a sentencepiece tokenizer."""
PICKLES = (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
"""What runs code when it is loaded, or may."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
WINDOW_BYTES = 16 << 20
"""Bytes of a file that are in memory at a time."""
MOST_HEADER_BYTES = 100_000_000
"""The longest header that safetensors itself reads."""


def refusal(name: str) -> str | None:
    """Why no model may have a file of this name; None if it may."""
    if name.lower().endswith(PICKLES):
        return f"{name} may be a pickle, which runs code when it is loaded; convert it to safetensors, or leave it out"
    if name == MANIFEST:
        return f"{name} is the registry's own name; call it something else"
    if not NAME.match(name) or not name.endswith(KINDS):
        return f"{name} is no file of a model ({', '.join(KINDS)}); leave it out"
    return None


def look(folder: Path) -> dict[str, Path]:
    """The files of a model's folder, by name, after a look at whether they are what they are called.

    Raises:
        UsageError: there is a file that no model may have, or a folder, or there is no model.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name one that headway export made")
    found = {path.name: path for path in sorted(folder.iterdir())}
    for name, path in found.items():
        if reason := refusal(name):
            raise UsageError(f"{folder}: {reason}")
        if not path.is_file():
            raise UsageError(f"{folder}: {name} is no file; a model's files lie side by side")
        if name.endswith(".safetensors"):
            _check_safetensors(path)
    if "config.json" not in found or not any(name.endswith(".safetensors") for name in found):
        raise UsageError(f"{folder} holds no model (config.json and weights in safetensors); make one: headway export")
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def windows(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a window at a time."""
    with path.open("rb") as file:
        while window := file.read(WINDOW_BYTES):
            yield window


def _check_safetensors(path: Path) -> None:
    """See that a file is laid out as safetensors says, whatever it is called: a header in JSON, then its tensors."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MOST_HEADER_BYTES)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        sound = 8 + length + max(ends, default=0) == size
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UsageError(f"{path} is called safetensors and is not; export the model again, or leave the file out")
