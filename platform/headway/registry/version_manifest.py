"""A version's manifest: small JSON that says what its files are, and where they came from.

Its SHA-256 stands in the model's journal, and that of every file in it, so a version is sound exactly if its manifest
and its files match.
"""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from headway.errors import DamageError
from headway.registry.files import refusal
from headway.runs.hashlog import sha256

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _VersionPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelFile(_VersionPart):
    """One file."""

    size: int = Field(ge=0)
    """Bytes."""
    sha256: Digest


class Origin(_VersionPart):
    """The checkpoint that a version came from: from here the run store leads to all that made it."""

    run: str
    tokens: int
    checkpoint: str
    """Key of the checkpoint's manifest."""
    sha256: str
    """Of that manifest."""
    recipe: str
    """Digest."""
    data: str
    """Digest."""
    headway: str
    """The version of Headway that trained it."""


class Code(_VersionPart):
    """The code that made the files of the checkpoint."""

    headway: str
    """Its version."""
    commit: str | None
    """Of its repository, if that is known; `-dirty` after it says that the code was changed since."""


def _allowed(name: str) -> str:
    if reason := refusal(name):
        raise ValueError(reason)
    return name


class VersionManifest(_VersionPart):
    """A version of a model, whole."""

    format: Literal[1] = 1
    model: str
    files: dict[Annotated[str, AfterValidator(_allowed)], ModelFile]
    """By name."""
    origin: Origin
    dtype: str
    """Of the weights."""
    quantization: str | None = None
    """The scheme, if they are quantized."""
    held_out: float | None = None
    """Held-out loss of the checkpoint [nats per token]."""
    code: Code
    created: float
    """Seconds since 1970."""
    trace: str | None = None
    """W3C `traceparent` of the run."""

    @property
    def size(self) -> int:
        """Of all files [bytes]."""
        return sum(file.size for file in self.files.values())

    @property
    def content(self) -> str:
        """Digest of what makes two publications the same: files, origin and types; not when, nor by which code."""
        same = self.model_dump(mode="json", include={"files", "origin", "dtype", "quantization"})
        return sha256(json.dumps(same, sort_keys=True, separators=(",", ":")).encode())

    def encode(self) -> bytes:
        """The manifest as JSON for people."""
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"


def decode(data: bytes, what: str) -> VersionManifest:
    """A manifest from its bytes.

    Raises:
        DamageError: they are not a manifest.
    """
    try:
        return VersionManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DamageError(f"{what}: not a sound manifest: {first['msg']}") from error
