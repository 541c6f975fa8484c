"""The base of every configuration section: closed (unknown keys are errors) and frozen."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class _Added:
    """Marks an option that came after results were published."""


ADDED = _Added()


class Section(BaseModel):
    """A configuration section. Unknown keys, wrong types and later changes are errors.

    An option marked `Annotated[type, ADDED]` is left out of dumps while it has its default: what was made
    before the option existed is still described by the same settings, so manifests and keys stay true.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name, field in type(self).model_fields.items():
            if ADDED in field.metadata and getattr(self, name) == field.default:
                values.pop(name, None)
        return values
