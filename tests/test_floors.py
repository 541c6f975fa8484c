"""Which room imports which: from upper floors to lower ones, and in no circle; nothing imports the demo."""

import ast
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from darkroom.imports import quick_imports

SRC = Path(__file__).parents[1] / "src"
LIBRARIES = {"torch", "diffusers", "transformers", "numpy", "PIL"}
# The rooms of darkroom (packages, and modules beside them) from the ground up. A room imports those of floors
# below its own, inside functions too.
FLOORS = (
    {
        "exported",
        "kinds",
        "imports",
        "refused",
        "settings",
        "store",
        "lock",
        "precision",
        "differences",
        "apportion",
        "quotes",
        "pbs",
        "machine",
    },
    {"components", "download", "pinned", "rows"},
    {"families", "sources", "scorers", "captioners", "benchmarks", "trackers", "perceptual", "jobs"},
    {"metrics", "gates", "rewriters"},
    {"config"},
    {"objectives", "models", "graph", "score", "filter", "recaption", "bucket", "slurm"},
    {"formats", "rewrite"},
    {"cache", "sample"},
    {"train", "draw", "export"},
    {"evaluate", "autoencoder"},
    {"report", "watch", "measuring"},
    {"stages"},
    {"publish"},
    {"retry", "trace", "all_runs", "push"},
    {"audit", "planning"},
    {"cli"},
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


PATHS = {module_of(path): path for path in SRC.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: import by the whole name"
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in PATHS else node.module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


GRAPH = {module: (imports_of(path) & set(PATHS)) - {module} for module, path in PATHS.items()}


def room_of(module: str) -> str:
    """`darkroom.store.tars` -> `store`; a module of another package -> that package."""
    package, *inner = module.split(".")
    return inner[0] if package == "darkroom" and inner else package


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """The names that import each other, by whatever way round."""
    left = {name: {n for n in needs if n in graph and n != name} for name, needs in graph.items()}
    while True:
        ends = [name for name, needs in left.items() if not needs & set(left)]
        starts = [name for name in left if not any(name in needs for needs in left.values())]
        if not ends and not starts:
            return set(left)
        for name in {*ends, *starts}:
            del left[name]


def test_every_room_has_one_floor_and_imports_lower_ones_only():
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    assert sum(map(len, FLOORS)) == len(floor_of)
    modules = [module for module in GRAPH if module.startswith("darkroom.")]
    assert {room_of(module) for module in modules} == set(floor_of)
    for module in modules:
        used = {room_of(name) for name in GRAPH[module]} - {room_of(module)}
        high = {room for room in used if floor_of.get(room, len(FLOORS)) >= floor_of[room_of(module)]}
        assert not high, f"{module} imports {high}, which lie no lower"


def test_no_files_and_no_rooms_import_each_other_in_a_circle():
    assert in_circles(GRAPH) == set()
    rooms: dict[str, set[str]] = {}
    for module, names in GRAPH.items():
        rooms.setdefault(room_of(module), set()).update(room_of(name) for name in names)
    assert in_circles(rooms) == set()
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"b", "c"}


def test_darkroom_imports_neither_the_demo_nor_another_package_of_this_project():
    for module, names in GRAPH.items():
        if module.split(".")[0] == "darkroom":
            assert {name.split(".")[0] for name in names} <= {"darkroom"}, module


@pytest.mark.parametrize(
    "first",
    [
        *(
            "darkroom.config.model",
            "darkroom.families.sd3",
            "darkroom.models.families",
            "darkroom.metrics.table",
        ),
        *("darkroom_demo.benchmark", "darkroom_demo.detector", "darkroom_demo.source"),
    ],
)
def test_any_module_can_be_imported_first(first):
    environment = warm.jobs.environment(os.environ)
    subprocess.run(["python", "-c", f"import {first}"], check=True, env=environment)


def test_reading_the_configuration_imports_no_torch():
    heavy = "{'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    script = f"import sys; from darkroom.config import load_project; load_project('demo'); assert not {heavy}"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=SRC.parent)


@pytest.mark.parametrize("path", sorted((SRC / "darkroom/exported").glob("*.py")), ids=lambda path: path.name)
def test_what_model_folders_carry_imports_what_every_user_of_diffusers_has(path):
    found = {name.split(".")[0] for name in imports_of(path)}
    assert found - set(sys.stdlib_module_names) <= LIBRARIES


@pytest.mark.parametrize("was_on", [True, False])
def test_quick_imports_leave_the_collector_as_it_was_also_where_one_fails(was_on):
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(ImportError), quick_imports():
            assert not gc.isenabled()
            import darkroom.nothing_of_this_name  # noqa: F401
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
