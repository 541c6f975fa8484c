"""Pages from templates: whatever data say is escaped, and a name that a template lacks is an error."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_NONE: Mapping[str, Callable[..., Any]] = MappingProxyType({})


def render(
    package: str, template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] = _NONE
) -> str:
    """A page from a template that lies in a package."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)
