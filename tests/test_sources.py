"""Kinds of sources: one file and one line of a table each; another package adds one by an entry point."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args

import pytest

from darkroom.config.dataset import parse_source
from darkroom.sources.base import Source, SourceSection
from darkroom.sources.table import SOURCES

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "polars", "pyarrow", "numpy", "img2dataset", "cv2", "PIL")


def run(code: str, *paths: Path) -> str:
    """What a fresh interpreter prints that finds packages in `paths` too."""
    found = os.pathsep.join(str(path) for path in (*paths, ROOT / "src"))
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    return told.stdout


def test_no_other_file_asks_for_a_kind_of_source() -> None:
    own = ("darkroom/sources/", "darkroom_demo/")
    sections = "|".join(spec.section.__name__ for spec in SOURCES.values())
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "rules").glob("*"), *(ROOT / "workflow").rglob("*.py")]
    naming = [
        path
        for path in files
        if not any(folder in path.as_posix() for folder in own)
        and re.search(rf"\b({sections})\b|source\.kind *[!=]=", path.read_text(encoding="utf-8"))
    ]
    assert [path.name for path in naming] == []


@pytest.mark.parametrize(
    "module",
    [
        "darkroom.sources.table",
        "darkroom.sources.base",
        "darkroom.sources.listed",
        "darkroom_demo.source",
        "darkroom_demo.section",
        "darkroom.config.dataset",
    ],
)
def test_the_sources_are_read_without_anything_heavy_whichever_is_imported_first(module: str) -> None:
    code = f"import sys, {module}, darkroom.sources.table; print(*sys.modules)"
    assert not set(HEAVY) & set(run(code).split())


def test_a_section_whose_kind_is_not_its_specs_name_is_refused() -> None:
    class Mine(SourceSection):
        kind: Literal["mine"]

    assert get_args(Mine.model_fields["kind"].annotation) == ("mine",)
    with pytest.raises(ValueError, match=r"Mine.kind should be Literal\['other'\], as its spec is named"):
        Source("other", Mine, lambda source: [])


PLUGIN = """
from typing import Literal
from darkroom.sources.base import Piece, Source, SourceSection


class Numbers(SourceSection):
    \"\"\"As many pictures as one says.\"\"\"

    kind: Literal["numbers"]
    num: int


def pieces(source):
    def read(columns):
        import polars as pl

        urls = [f"http://pictures.example/{i}.png" for i in range(source.num)]
        table = pl.DataFrame({"url": urls, "caption": ["a number"] * source.num})
        yield table.with_columns(*(pl.lit(None).alias(name) for name in columns))

    return [Piece("all", {}, read)]


SPEC = Source("numbers", Numbers, pieces)
"""
USE = """
import sys
from pathlib import Path
{first}
from darkroom.config import ConfigError, load_dataset, schema_text
from darkroom.config.reference import reference_markdown
from darkroom.sources.table import count_rows, look_at, write_urls

source = load_dataset("numbers", sys.path[1]).source
assert "Numbers" in schema_text() and "kind: numbers" in reference_markdown()
assert count_rows(source) == 3 and len(look_at(source, 2, "numbers", Path(sys.path[1])).parts) == 2
assert write_urls(source, sys.path[1] + "/urls.parquet", []) == 3
try:
    load_dataset("wrong", sys.path[1])
except ConfigError as error:
    print(error)
"""
DATASET = "description: d\nsource: {{kind: numbers, {}: 3}}\nrecaption: null\n"


@pytest.mark.parametrize("first", ["", "import plugin"])
def test_a_source_of_another_package_is_configured_explained_and_listed_as_darkrooms_own(
    tmp_path: Path, first: str
) -> None:
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[darkroom.sources]\nnumbers = plugin:SPEC\n")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "config/datasets").mkdir(parents=True)
    for name, key in (("numbers", "num"), ("wrong", "nun")):
        (tmp_path / f"config/datasets/{name}.yaml").write_text(DATASET.format(key))
    told = run(USE.format(first=first), tmp_path)
    assert "source.nun: unknown key; did you mean 'num'?" in told
    assert (tmp_path / "urls.parquet").exists()


def test_an_unknown_kind_is_refused_and_all_kinds_are_told() -> None:
    with pytest.raises(ValueError, match="'nosuch' found .*" + ".*".join(f"'{name}'" for name in SOURCES)):
        parse_source({"kind": "nosuch"})
