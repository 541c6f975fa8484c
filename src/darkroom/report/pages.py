"""Pages from templates: whatever data say is escaped, and a name that a template lacks is an error."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_NONE: Mapping[str, Callable[..., Any]] = MappingProxyType({})


def render(
    package: str, template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] = _NONE
) -> str:
    """A page from a template that lies in a package; what it includes lies there, or beside the report's own."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("darkroom.report", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"number": number, **filters})
    return environment.get_template(template).render(**values)


def own_script(package: str, name: str) -> dict[str, Any]:
    """A page's one script, a file of a package: `script`, and `script_digest`, by which its policy names it.

    So nothing that the data say can run.
    """
    script = (files(package) / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "script_digest": f"sha256-{digest}"}


def number(value: float | None, digits: int = 0) -> str:
    """A number with thin spaces between thousands; a dash for None."""
    return (
        "\N{EN DASH}" if value is None else f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    )


def short(value: float) -> str:
    """A score with four digits."""
    return f"{value:.4g}"
