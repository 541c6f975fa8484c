"""Which metrics a folder is measured by, with the components that they stand on: asked for on a command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.components.base import Component, ComponentOf, marks
from darkroom.components.check import check_component, origin
from darkroom.config import ConfigError
from darkroom.config.load import load_components
from darkroom.metrics.base import Metric
from darkroom.metrics.table import METRICS
from darkroom.settings.base import Section


@dataclass(frozen=True)
class Chosen:
    """Metric -> its options; and name -> component of those that they name."""

    sections: dict[str, Section]
    components: dict[str, Component]


def choose(
    names: Sequence[str], asked: Mapping[str, str], options: Mapping[str, Any], root: str | Path = "."
) -> Chosen:
    """The metrics of these names.

    Args:
        names: of METRICS.
        asked: kind of component -> a folder, or a name of config/components.yaml.
        options: those that are not None go to every metric that has them.
        root: the project's folder, where there is one.

    Raises:
        ValueError: a metric is unknown or wants more than components, or a component is missing, or none of the
            metrics takes an option.
    """
    sections: dict[str, Section] = {}
    components: dict[str, Component] = {}
    if not names:
        raise ValueError(f"name one or more metrics of {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            raise ValueError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
        values: dict[str, Any] = {}
        for field, kind in _components_of(METRICS[name], asked).items():
            if kind not in asked:
                raise ValueError(
                    f"{name} stands on a component: give --component {kind}=FOLDER{origin(kind)}"
                )
            called, component = _find(kind, asked[kind], Path(root))
            if components.get(called, component) != component:
                called = f"{kind}-{called}"
            values[field], components[called] = called, component
        known = METRICS[name].section.model_fields
        values |= {key: value for key, value in options.items() if value is not None and key in known}
        missing = [key for key, field in known.items() if field.is_required() and key not in values]
        if missing:
            raise ValueError(f"{name} needs {', '.join(missing)}, which a run says: see docs/measure.md")
        sections[name] = METRICS[name].section(**values)
    for key, value in options.items():
        if value is not None and not any(hasattr(section, key) for section in sections.values()):
            raise ValueError(f"{key.replace('_', '-')} is an option of none of {', '.join(names)}")
    for name, component in components.items():
        try:
            check_component(component)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return Chosen(sections, components)


def _components_of(metric: Metric, asked: Mapping[str, str]) -> dict[str, str]:
    """Option -> kind of the component that it names; where it may name one of several, the one asked for first."""
    found: dict[str, str] = {
        name: mark.kind
        for name, field in metric.section.model_fields.items()
        for mark in marks(field)
        if isinstance(mark, ComponentOf)
    }
    needed = {name: kind for name, kind in found.items() if metric.section.model_fields[name].is_required()}
    if needed or not found:
        return needed
    first = next((kind for kind in asked if kind in found.values()), next(iter(found.values())))
    return {name: kind for name, kind in found.items() if kind == first}


def _find(kind: str, told: str, root: Path) -> tuple[str, Component]:
    """(name, component). A folder is called by its own name: no path of this machine is in a protocol."""
    if Path(told).is_dir():
        return Path(told).resolve().name, Component.model_validate({"kind": kind, "path": told})
    path = root / "config/components.yaml"
    if not path.is_file():
        raise ValueError(f"--component {kind}={told}: there is no such folder{origin(kind)}")
    try:
        listed = {name: found for name, found in load_components(path).items() if found.kind == kind}
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if told not in listed:
        has = ", ".join(listed) or "none"
        raise ValueError(
            f"--component {kind}={told}: is neither a folder nor of config/components.yaml ({has}){origin(kind)}"
        )
    return told, listed[told]
