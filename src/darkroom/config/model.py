"""Which network a run trains: one section for each family of `darkroom.families`, told apart by `family`."""

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from darkroom.families.base import ModelSection
from darkroom.families.table import FAMILIES
from darkroom.settings.unions import one_of

DEFAULT_FAMILY = next(iter(FAMILIES))


if TYPE_CHECKING:
    Model = ModelSection
else:
    Model = one_of({name: family.section for name, family in FAMILIES.items()}, "family", DEFAULT_FAMILY)
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Model)


def read_model(values: dict[str, Any]) -> ModelSection:
    """The section of a dump, as its family's class."""
    section: ModelSection = _ADAPTER.validate_python(values)
    return section
