"""The base of every configuration section: closed (unknown keys are errors) and frozen."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator


class _Added:
    """Marks an option that came after results were published."""


ADDED = _Added()


class _Told:
    """Marks a section that the reference of the configuration tells in another place."""


TOLD_ELSEWHERE = _Told()


class Section(BaseModel):
    """A configuration section. Unknown keys, wrong types and later changes are errors.

    An option marked `Annotated[type, ADDED]` is left out of dumps while it has its default: what was made
    before the option existed is still described by the same settings, so manifests and keys stay true.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, values: Any) -> Any:
        """Python counts with True; a person who writes `true` for a number means something else."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                types = _types(cls.model_fields[name].annotation)
                if types & {int, float} and bool not in types:
                    raise ValueError(f"{name} is {str(value).lower()}; it should be a number")
        return values

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name, field in type(self).model_fields.items():
            if ADDED in field.metadata and getattr(self, name) == field.default:
                values.pop(field.serialization_alias or name, None)
        return values


def _types(annotation: Any) -> set[Any]:
    """An annotation and what it is made of."""
    return {annotation}.union(*map(_types, get_args(annotation))) if get_args(annotation) else {annotation}
