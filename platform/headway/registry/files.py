"""The files a model may have: safetensors, JSON, text and tokenizers. None of them runs code when it is loaded."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from headway import strict_json
from headway.errors import UsageError
from headway.localfiles import open_regular
from headway.registry.model_folder import check_model_folder

MANIFEST = "manifest.json"
"""Name of the registry's manifest, beside the model's files."""
ALLOWED_SUFFIXES = (".safetensors", ".json", ".jinja", ".md", ".model", ".txt")
"""Suffixes of a model's files; `.model` is a sentencepiece tokenizer."""
PICKLE_SUFFIXES = (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
"""Suffixes of formats that can run code when they are loaded."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
CHUNK_BYTES = 16 << 20
"""Bytes of a file in memory at a time."""
MAX_HEADER_BYTES = 16 << 20
"""Longest safetensors header [bytes]: about 150,000 tensors in one file."""


def name_problem(name: str) -> str | None:
    """Why a model must not have a file of this name; None if it may."""
    if name.lower().endswith(PICKLE_SUFFIXES):
        return f"{name} may be a pickle, which runs code when it is loaded; convert it to safetensors, or leave it out"
    if name == MANIFEST:
        return f"{name} is reserved for the registry; rename the file"
    if not NAME.match(name) or not name.endswith(ALLOWED_SUFFIXES):
        return f"{name} is not a model file ({', '.join(ALLOWED_SUFFIXES)}); leave it out"
    return None


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model's folder, by name, after checking names, links, and the layout of safetensors files.

    Raises:
        UsageError: the folder holds a file that no model may have, or a folder, or no model, or leads out of itself.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name one that headway export made")
    paths = {path.name: path for path in sorted(folder.iterdir())}
    for name, path in paths.items():
        if problem := name_problem(name):
            raise UsageError(f"{folder}: {problem}")
        if not path.is_file():
            raise UsageError(f"{folder}: {name} is not a file; a model has no subfolders")
        if name.endswith(".safetensors"):
            _check_safetensors(path)
    if "config.json" not in paths or not any(name.endswith(".safetensors") for name in paths):
        raise UsageError(f"{folder} holds no model (config.json and safetensors weights); make one: headway export")
    check_model_folder(folder)
    return paths


def read_unchanged(path: Path, sha256: str, advance: Callable[[int], object]) -> Iterator[bytes]:
    """The bytes of a file, `CHUNK_BYTES` at a time. At the end, checks them against their SHA-256.

    Raises:
        UsageError: the file changed since its SHA-256 was computed. The store keeps nothing of it.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            yield chunk
            advance(len(chunk))
    if digest.hexdigest() != sha256:
        raise UsageError(f"{path} was changed while it was being published; nothing was published. Publish it again")


def _check_safetensors(path: Path) -> None:
    """Check the layout of a safetensors file: a JSON header, then exactly the tensors that it names."""
    size = path.stat().st_size
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = strict_json.parse(file.read(min(length, MAX_HEADER_BYTES)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        sound = 8 + length + max(ends, default=0) == size
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UsageError(f"{path} is not a safetensors file; export the model again, or leave the file out")
