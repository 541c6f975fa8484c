"""Tables of kinds: what darkroom has itself, and what other installed packages add through entry points.

A kind is one file with a spec, a plain object that has a `name`. Its table is explicit:

    FAMILIES = table("darkroom.families", mmdit.SPEC, unet_sd.SPEC)

Another package joins with an entry point whose name is the spec's:

    [project.entry-points."darkroom.families"]
    mine = "my_package.family:SPEC"

A kind's file imports its package's `base`, never the table. Tables are read with the configuration, by jobs that
need no torch as well: import what is heavy inside functions.
"""

import tomllib
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Protocol, TypeVar

_PREFIX = "darkroom."


class Named(Protocol):
    """What a spec has at least."""

    @property
    def name(self) -> str: ...


SpecT = TypeVar("SpecT", bound=Named)


def table(group: str, first: SpecT, *others: SpecT) -> dict[str, SpecT]:
    """Name -> spec: those given, in their order, then those of the entry points of `group`, sorted by name.

    Raises:
        ValueError: a name is given twice (says by whom), or an entry point is no spec of this kind.
    """
    found: dict[str, SpecT] = {}
    origins: dict[str, str] = {}
    wanted = type(first)
    given = [(spec, "darkroom") for spec in (first, *others)]
    points = sorted(installed(group), key=lambda point: (point.name, point.value))
    for spec, origin in [*given, *((_load(point, wanted), _origin(point)) for point in points)]:
        if spec.name in found:
            raise ValueError(
                f"{group}: {spec.name!r} is given twice, by {origins[spec.name]} and by {origin};"
                " uninstall one of them, or give it another name"
            )
        found[spec.name], origins[spec.name] = spec, origin
    return found


@cache
def installed(group: str) -> EntryPoints:
    """A group's entry points of all installed packages."""
    return entry_points(group=group)


def plugin_packages() -> list[str]:
    """The packages that add something to darkroom, as `import` names them."""
    groups = [group for group in entry_points().groups if group.startswith(_PREFIX)]
    return sorted({point.module.partition(".")[0] for group in groups for point in installed(group)})


def not_installed(pyproject: Path) -> list[str]:
    """The entry points that a project has and its environment does not know: that was set up before them.

    None, where there is no such file.
    """
    if not pyproject.is_file():
        return []
    named = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"].get("entry-points", {})
    wanted = {(group, name, value) for group, points in named.items() for name, value in points.items()}
    known = {(point.group, point.name, point.value) for group in named for point in installed(group)}
    return [f"{name} of {group}" for group, name, _ in sorted(wanted - known)]


def _origin(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "a package"
    return f"{package} ({point.value})"


def _load(point: EntryPoint, wanted: type[SpecT]) -> SpecT:
    where = f"entry point {point.name!r} of {point.group}, from {_origin(point)}"
    try:
        spec = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where}: cannot be loaded: {error}") from error
    if not isinstance(spec, wanted):
        raise ValueError(f"{where}: is a {type(spec).__name__}, where a {wanted.__name__} is needed")
    if spec.name != point.name:
        raise ValueError(f"{where}: its spec's name is {spec.name!r}; both must be the same")
    return spec
