"""Tables of kinds: this package's own, and those that other packages add by an entry point."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import invalidate_caches
from pathlib import Path

import pytest

from darkroom import kinds

SRC = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Spec:
    name: str


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install(package, "name = module:attribute", source)`: an installed package with that entry point."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    kinds.installed.cache_clear()
    modules = set(sys.modules)

    def add(package: str, point: str, source: str) -> None:
        info: Path = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[darkroom.tests]\n{point}\n")
        (tmp_path / f"{package}.py").write_text(source)
        invalidate_caches()

    yield add
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    kinds.installed.cache_clear()


SOURCE = "from test_kinds import Spec\nSPEC = Spec({!r})\n"


def test_a_table_has_what_is_given_in_its_order_and_then_what_is_installed_by_name(install):
    install("plugin_a", "red = plugin_a:SPEC", SOURCE.format("red"))
    install("plugin_b", "blue = plugin_b:SPEC", SOURCE.format("blue"))
    found = kinds.table("darkroom.tests", Spec("second"), Spec("first"))
    assert list(found) == ["second", "first", "blue", "red"]
    assert all(spec.name == name for name, spec in found.items())


def test_a_group_without_entry_points_is_what_is_given(install):
    assert list(kinds.table("darkroom.none", Spec("one"))) == ["one"]


def test_a_name_that_two_give_is_refused_and_both_are_named(install):
    install("plugin_a", "one = plugin_a:SPEC", SOURCE.format("one"))
    with pytest.raises(
        ValueError, match=r"'one' is given twice, by darkroom and by plugin_a \(plugin_a:SPEC\)"
    ):
        kinds.table("darkroom.tests", Spec("one"))
    install("plugin_b", "one = plugin_b:SPEC", SOURCE.format("one"))
    kinds.installed.cache_clear()
    with pytest.raises(ValueError, match=r"by plugin_a \(plugin_a:SPEC\) and by plugin_b \(plugin_b:SPEC\)"):
        kinds.table("darkroom.tests", Spec("other"))
    with pytest.raises(ValueError, match="'two' is given twice, by darkroom and by darkroom"):
        kinds.table("darkroom.none", Spec("two"), Spec("two"))


@pytest.mark.parametrize(
    ("point", "source", "told"),
    [
        ("one = plugin:SPEC", "import no_such_module_1234", "cannot be loaded: No module named"),
        ("one = plugin:MISSING", SOURCE.format("one"), "cannot be loaded: .*MISSING"),
        ("one = plugin:SPEC", "SPEC = {'name': 'one'}", "is a dict, where a Spec is needed"),
        ("one = plugin:SPEC", SOURCE.format("two"), "its spec's name is 'two'; both must be the same"),
    ],
)
def test_an_entry_point_that_is_no_spec_is_refused_by_name_and_package(install, point, source, told):
    install("plugin", point, source)
    with pytest.raises(
        ValueError, match=rf"entry point 'one' of darkroom.tests, from plugin \(plugin:.*{told}"
    ):
        kinds.table("darkroom.tests", Spec("base"))


PLUGIN = """
from dataclasses import replace
from typing import Literal

from darkroom.families import unet_sd


class Mine(unet_sd.SDModel):
    family: Literal["mine"] = "mine"


SPEC = replace(unet_sd.SPEC, section=Mine, title="mine")
"""
SCRIPT = """
import sys
from darkroom.config.model import read_model
from darkroom.config.load import load_project
from darkroom.config.schema import schema_text

assert not {"torch", "diffusers"} & set(sys.modules)
assert "Mine" in schema_text()
model = read_model({"family": "mine", "params": {"sample_size": 8}})
from darkroom.families import reference
from darkroom.families.table import FAMILIES

assert list(FAMILIES)[-1] == "mine" and "| `mine` |" in reference.reference_markdown()
from darkroom.models.families import build_denoiser

sizes = {"latent_channels": 4, "text_dim": 8, "pooled_dim": 0}
params = {"block_out_channels": [8], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
          "layers_per_block": 1, "norm_num_groups": 4}
print(build_denoiser(read_model({"family": "mine", "params": params}), sizes, 0).family.name)
"""


def test_a_family_of_another_package_is_configured_documented_and_built_as_darkrooms_own(tmp_path):
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[darkroom.families]\nmine = plugin:SPEC\n")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SRC)])}
    command = [sys.executable, "-c", SCRIPT]
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.split()[-1] == "mine"
