"""A model's folder in Hugging Face's layout, whoever wrote it, checked before a library loads it.

Libraries trust such a folder: they run code that its configuration names, follow its index to other folders, and build
as many layers as it says.
"""

import re
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from headway import strict_json
from headway.errors import UsageError
from headway.localfiles import read_bounded

CONFIG = "config.json"
INDEX_SUFFIX = ".safetensors.index.json"
WEIGHTS_SUFFIX = ".safetensors"
MAX_FILES = 10_000
"""Most files of a model. Large ones have hundreds."""
MAX_CONFIG_BYTES = 4 << 20
"""Longest configuration [bytes]. Usual ones have some kB."""
MAX_INDEX_BYTES = 16 << 20
"""Longest index [bytes]: about 150,000 tensors."""
FOREIGN_KEYS = {
    "auto_map": "names code to run, and Headway runs no code of a model",
    "base_model_name_or_path": "names another model to load; merge the adapter into its model first",
    "transformers_weights": "names files to load; list them in model.safetensors.index.json",
}
"""Keys that lead a library out of the folder, and why such a model is refused."""
PARTS = re.compile(r"(?:^|_)(?:layers?|blocks|depth|experts)$")
"""Keys of numbers of layers and experts. A library makes several objects for each."""
MAX_PARTS = 10_000
"""Most layers or experts that a configuration may ask for. The largest models have hundreds."""


def check_model_folder(folder: Path) -> Mapping[str, Any]:
    """Check a folder that a library is to load a model from; returns its configuration.

    Raises:
        UsageError: it holds no model, leads out of the folder, runs code, or asks for more than any model needs.
    """
    if not (folder / CONFIG).exists():
        raise UsageError(f"{folder} holds no exported model (no {CONFIG}); make one with headway export")
    paths = list(islice(folder.iterdir(), MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        raise UsageError(f"{folder} holds more than {MAX_FILES:,} files, which no model does")
    files = {path.name: _identity(folder, path) for path in sorted(paths) if path.is_symlink() or not path.is_dir()}
    _check_distinct(folder, files)
    config: Mapping[str, Any] = {}
    for name in files:
        if name.endswith(CONFIG):  # generation_config.json, tokenizer_config.json and others too
            content = _read_object(folder / name, MAX_CONFIG_BYTES)
            _check_values(folder / name, content)
            config = content if name == CONFIG else config
        elif name.endswith(INDEX_SUFFIX):
            _check_index(folder / name, files)
    return config


def _identity(folder: Path, path: Path) -> tuple[int, int]:
    """Device and inode of a file of the folder.

    A link is followed within the folder, and to the files of Hugging Face's cache: `blobs`, beside `snapshots`.
    """
    try:
        status, target, root = path.stat(), path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is not a file; a model has only files")
    homes = {root, root.parent.parent / "blobs"} if root.parent.name == "snapshots" else {root}
    if path.is_symlink() and target.parent not in homes:
        raise UsageError(
            f"{path} is a link to {target}, outside of the model's folder; copy the file if it belongs here"
        )
    return status.st_dev, status.st_ino


def _check_distinct(folder: Path, files: Mapping[str, tuple[int, int]]) -> None:
    """Refuse weights that are one file under two names."""
    names: dict[tuple[int, int], str] = {}
    for name, identity in files.items():
        if name.endswith(WEIGHTS_SUFFIX) and (other := names.setdefault(identity, name)) != name:
            raise UsageError(f"{folder}: {other} and {name} are one file; remove one of them")


def _read_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes."""
    try:
        content = strict_json.parse(read_bounded(path, limit), nan=True)  # transformers writes infinities
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is a JSON {type(content).__name__}, not an object")
    return content


def _check_values(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a configuration that leads out of the folder, or asks for too much."""
    for key, value in _items(content):
        if value and key in FOREIGN_KEYS:
            raise UsageError(f"{path}: {key} {FOREIGN_KEYS[key]}")
        if isinstance(value, int) and not 0 <= value <= MAX_PARTS and PARTS.search(key):
            raise UsageError(f"{path}: {key} is {value:,}; a model may have 0 to {MAX_PARTS:,}")


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of a JSON document, at any depth."""
    pending = [tree]
    while pending:
        match pending.pop():
            case dict() as mapping:
                yield from mapping.items()
                pending += mapping.values()
            case list() as values:
                pending += values


def _check_index(path: Path, files: Mapping[str, object]) -> None:
    """Refuse an index that names anything but weights of its folder."""
    weights = _read_object(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weights, dict):
        raise UsageError(f"{path} has no weight_map, so it is not an index of weights")
    for name in weights.values():
        if not isinstance(name, str) or name not in files or not name.endswith(WEIGHTS_SUFFIX):
            raise UsageError(f"{path} names {name!r}, which is not a file of weights in {path.parent}")
