"""What all sections of a recipe share: strictness, the marks of keys, and sections of several kinds."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from headway.plugins import Kinds

WHERE: dict[str, Any] = {"x-meaning": False}
"""Schema mark of a key that does not affect the trained parameters."""
ADDED: dict[str, Any] = {"x-meaning": "unless default"}
"""Schema mark of a key that was added when runs were stored already: it is part of a recipe's meaning unless it has its
default, so those runs keep their digests. The default must never change."""
UNKNOWN_KIND = "unknown_kind"
"""Type of the validation error about a kind that no installed package has."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A strict, frozen group of keys. Unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class KindSection(Section):
    """A section that has its own keys for each kind: one subclass per kind."""

    kind: str


@dataclass(frozen=True)
class ByKind:
    """Annotation of a section whose class depends on its key `kind`."""

    kinds: Kinds[type[KindSection]]
    default: str

    def kind(self, value: Any) -> Any:
        """The kind of a section with the keys `value`."""
        return value.get("kind", self.default) if isinstance(value, dict) else self.default

    def section(self, value: Any) -> type[KindSection] | None:
        """The class of a section with the keys `value`; None if its kind is unknown."""
        kind = self.kind(value)
        return self.kinds.get(kind if isinstance(kind, str) else self.default)  # the class refuses what is not a string

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Validate by the class of the kind."""
        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The JSON Schema of each kind; `kind` is required except for the default one."""
        references = []
        for kind in self.kinds.names():
            reference = handler(self.kinds[kind].__pydantic_core_schema__)
            definition = handler.resolve_ref_schema(reference)
            definition["properties"]["kind"] = {**definition["properties"]["kind"], "const": kind}
            if kind != self.default:
                definition["properties"]["kind"].pop("default", None)
                definition["required"] = ["kind", *definition.get("required", [])]
            references.append(reference)
        return references[0] if len(references) == 1 else {"oneOf": references}

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> KindSection:
        if isinstance(value, self.kinds.base):
            if type(value) is not self.kinds[value.kind]:
                raise ValueError(f"{type(value).__name__} has kind {value.kind}, which is not its own")
            return value
        section = self.section(value)
        if section is None:
            error = PydanticCustomError(UNKNOWN_KIND, "{message}", {"message": self.kinds.unknown(value["kind"])})
            details = InitErrorDetails(type=error, loc=("kind",), input=value["kind"])
            raise ValidationError.from_exception_data(self.kinds.group, [details])
        if info.mode == "json":
            return section.model_validate_json(json.dumps(value))
        return section.model_validate(value)
