"""Manifests: JSON documents in a store or a folder, typed by pydantic and readable by people."""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from headway import strict_json
from headway.errors import DamageError

STORED = {"stored": True}
"""Context of a validation of what was stored, for manifests that are stored with more than their fields."""


class ManifestPart(BaseModel):
    """A typed part of a manifest: frozen, with unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Manifest(ManifestPart):
    """A manifest: one JSON document, typed and checked."""

    def encode(self) -> bytes:
        """The manifest as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, name: str) -> Self:
        """The manifest from its bytes; `name` stands for it in errors.

        Raises:
            DamageError: `data` is not a valid manifest of this type.
        """
        try:
            fields = strict_json.parse(data, nan=True)  # a loss may be NaN
            return cls.model_validate(fields, context=STORED)  # not of JSON: an error would hold the input many times
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DamageError(f"{name}: not a sound manifest: {first['msg']}") from error
        except ValueError as error:
            raise DamageError(f"{name}: not a sound manifest: {error}") from error
