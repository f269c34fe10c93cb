"""The manifest of a model version: JSON with its files and their origin.

The model's journal holds the manifest's SHA-256, and the manifest that of each file. So a version is sound exactly if
its manifest and its files match these.
"""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator

from headway.json_manifest import Manifest, ManifestPart
from headway.registry.files import name_problem
from headway.runs.field_types import ByteCount, Digest, Line, Loss, Moment, Tokens
from headway.runs.hashlog import sha256


class ModelFile(ManifestPart, strict=True):
    """A file of a model version: its size and checksums."""

    size: ByteCount
    """Length [bytes]."""
    sha256: Digest


class Origin(ManifestPart, strict=True):
    """The checkpoint that a version was made from. The run store leads from it to everything that produced it."""

    run: Line
    tokens: Tokens
    checkpoint: Line
    """Key of the checkpoint's manifest."""
    sha256: Line
    """SHA-256 of the checkpoint's manifest."""
    recipe: Line
    """Digest of the recipe."""
    data: Line
    """Digest of the data."""
    headway: Line
    """Version of Headway that trained the checkpoint."""


class Code(ManifestPart, strict=True):
    """The code that made the files."""

    headway: Line
    """Version of Headway."""
    commit: Line | None
    """Commit of the code, if known; the suffix `-dirty` marks uncommitted changes."""


def _allowed(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(problem)
    return name


class VersionManifest(Manifest, strict=True):
    """A version of a model."""

    format: Literal[1] = 1
    model: Line
    files: dict[Annotated[str, AfterValidator(_allowed)], ModelFile]
    """All files, by name."""
    origin: Origin
    dtype: Line
    """Type of the weights."""
    quantization: Line | None = None
    """Quantization scheme, if the weights are quantized."""
    held_out: Loss = None
    """Held-out loss of the checkpoint [nats per token]."""
    code: Code
    created: Moment
    """Time of publication [s since 1970]."""
    trace: Line | None = None
    """W3C `traceparent` of the run."""

    @property
    def size(self) -> int:
        """Length of all files together [bytes]."""
        return sum(file.size for file in self.files.values())

    @property
    def content(self) -> str:
        """Digest of files, origin and types; equal for two publications of the same content, at any time."""
        content = self.model_dump(mode="json", include={"files", "origin", "dtype", "quantization"})
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
