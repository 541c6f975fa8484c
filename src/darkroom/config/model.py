"""Which network a run trains: one section for each family of `darkroom.families`, told apart by `family`."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Tag, TypeAdapter

from darkroom.families.base import ModelSection
from darkroom.families.table import FAMILIES

DEFAULT_FAMILY = next(iter(FAMILIES))


def _family(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("family", DEFAULT_FAMILY))
    return str(getattr(value, "family", DEFAULT_FAMILY))


if TYPE_CHECKING:
    Model = ModelSection
else:
    Model = Annotated[
        Union[tuple(Annotated[family.section, Tag(name)] for name, family in FAMILIES.items())],  # noqa: UP007
        Discriminator(
            _family,
            custom_error_type="unknown_family",
            custom_error_message="family must be one of " + ", ".join(FAMILIES),
        ),
    ]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Model)


def read_model(values: dict[str, Any]) -> ModelSection:
    """The section of a dump, as its family's class."""
    section: ModelSection = _ADAPTER.validate_python(values)
    return section
