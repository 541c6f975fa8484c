"""A captioner of another package is configured, loaded and asked as darkroom's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from test_recaption import make_part

from darkroom.captioners.base import Captioner, CaptionerSection
from darkroom.captioners.table import CAPTIONERS
from darkroom.captioners.transformers import Transformers
from darkroom.components.base import Component
from darkroom.recaption.stage import recaption_part
from darkroom.store import read_table
from darkroom.store.captions import names_in

SRC = Path(__file__).parents[1] / "src"
PLUGIN = '''
from typing import Annotated, Literal

from darkroom.captioners.base import BatchedSection, Captioner, Generated
from darkroom.captioners.batches import PictureError, in_batches
from darkroom.components.base import ComponentOf


class Sides(BatchedSection):
    """Tells a picture's sides."""

    kind: Literal["sides"]
    eyes: Annotated[str, ComponentOf("clip")]
    most_px: int = 200


class Loaded:
    computed_in = "float32"
    decoding = {"method": "look"}

    def __init__(self, section, components):
        self.most_px = section.most_px
        self.provenance = {"model": section.eyes, "model_path": components[section.eyes].path}
        self.provenance |= {"model_sha256": None, "model_revision": "abc", "library": "sides 1"}

    def prepare(self, pictures):
        return [picture.size for picture in pictures]

    def caption(self, prepared, asked):
        for place, (_, height) in enumerate(prepared):
            if height > self.most_px:
                raise PictureError(place, "it is too tall")
        return [[Generated(f"{name} of {h} px", 3, "stop") for _, h in prepared] for name in asked.names]


SPEC = Captioner("sides", Sides, in_batches(Loaded))
'''
USE = """
import sys
{first}
from darkroom.components.base import named_components
from darkroom.captioners.table import AnyCaptioner
from pydantic import TypeAdapter
from darkroom.config.reference import reference_markdown
from darkroom.config.schema import schema_text

assert "torch" not in sys.modules
parse_recaption = TypeAdapter(AnyCaptioner).validate_python
assert "Sides" in schema_text() and "`recaption (kind: sides)`" in reference_markdown()
asked = {"captions": {"long": {"prompt": "l"}, "short": {"prompt": "s"}}}
assert parse_recaption({**asked, "captioner": "c"}).kind == "transformers"
section = parse_recaption({**asked, "kind": "sides", "eyes": "e"})
assert [(named.name, named.kind) for named in named_components(section)] == [("e", "clip")]
assert parse_recaption(section.model_dump(mode="json")) == section
try:
    parse_recaption({**asked, "kind": "nobody"})
except ValueError as error:
    assert "kind must be one of transformers, server, sides" in str(error), error
    print("refused")
"""


@pytest.mark.parametrize("first", ["", "import plugin"])
def test_a_captioner_of_another_package_is_an_option_like_darkrooms_own(tmp_path: Path, first: str) -> None:
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[darkroom.captioners]\nsides = plugin:SPEC\n")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SRC)])}
    command = [sys.executable, "-c", USE.replace("{first}", first)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 0 and told.stdout == "refused\n", told.stderr[-2000:]


def test_the_stage_asks_any_captioner_and_a_picture_that_it_cannot_caption_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict = {}
    exec(compile(PLUGIN, "plugin.py", "exec"), names)
    monkeypatch.setitem(CAPTIONERS, "sides", names["SPEC"])
    captions = {"little": {"prompt": "l"}, "much": {"prompt": "m", "max_new_tokens": 9}}
    asked = {"captions": captions, "batch_size": 4, "kind": "sides", "eyes": "e"}
    components = {"e": Component(kind="clip", path="somewhere")}
    part, out = make_part(tmp_path, [3, 1, 0, 2, 4, 6, 5]), tmp_path / "captions.parquet"
    counts = recaption_part(*part, names["Sides"](**asked), components, out)
    table = read_table(out)
    assert names_in(table.columns) == ("original", "little", "much")
    for name in captions:
        assert table[f"caption_{name}"].to_list() == [
            f"{name} of {40 + 8 * i} px" for i in (0, 1, 3, 4, 5, 6)
        ]
    assert counts["captioned"] == 6 and counts["computed_in"] == {"float32": 6}
    row = table.row(0, named=True)
    assert (row["model"], row["model_path"], row["model_sha256"]) == ("e", "somewhere", None)
    assert (row["model_revision"], row["library"]) == ("abc", "sides 1")
    told = {"max_new_tokens": 96, "strip_prefixes": [], "temperature": 0.0, "top_p": 1.0}
    by_caption = {"little": told, "much": {**told, "max_new_tokens": 9}}
    assert json.loads(row["decoding"]) == {"batch_size": 4, "method": "look", "captions": by_caption}
    assert table.schema["model_sha256"] == pl.String
    with pytest.raises(ValueError, match=f"picture {6:032x}: it is too tall"):
        recaption_part(*part, names["Sides"](**asked, most_px=80), components, tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()


def test_a_section_whose_kind_is_not_its_specs_name_is_refused() -> None:
    class Mine(CaptionerSection):
        kind: Literal["mine"]

    with pytest.raises(ValueError, match=r"Mine.kind should be Literal\['other'\], as its spec is named"):
        Captioner("other", Mine, lambda section, components: None)


def test_settings_of_before_there_were_kinds_are_dumped_as_then() -> None:
    section = Transformers(captioner="c", captions={"long": {"prompt": "l"}})
    assert "kind" not in section.model_dump(mode="json") and section.kind == "transformers"
