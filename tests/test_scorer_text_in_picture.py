"""The scorer `text_in_picture` reads marks that were drawn over photographs, and nothing where there is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyProject
from photographs import PHOTOGRAPHS, photograph, scores, write_over, write_part
from PIL import Image

from darkroom.scorers.text_in_picture import Line, area, is_stock_mark, reduced

CLEAN, AGENCY, TILES, SIGN = "clean", "agency", "tiles", "sign"


def drawn(name: str, what: str) -> Image.Image:
    picture = photograph(name)
    if what == AGENCY:
        write_over(picture, "shutterstock", (0.1, 0.45), 0.1)
    if what == TILES:
        for row in range(3):
            for column in range(2):
                write_over(picture, "SAMPLE", (0.05 + column / 2, 0.1 + row / 3), 0.1)
    if what == SIGN:
        write_over(picture, "fresh bread\nevery morning", (0.1, 0.4), 0.1)
    return picture


@pytest.mark.real
def test_stock_marks_are_told_from_other_text_and_clean_photographs_have_none(tmp_path: Path) -> None:
    found = {}
    for what in (CLEAN, AGENCY, TILES, SIGN):
        (tmp_path / what).mkdir()
        write_part(tmp_path / what, [drawn(name, what) for name in PHOTOGRAPHS])
        found[what] = scores(tmp_path / what, "text_in_picture", {"max_side_px": 640})
        assert found[what].row(-1)[-3:] == (None, None, None)
    seen = {what: table.head(len(PHOTOGRAPHS)) for what, table in found.items()}
    assert seen[CLEAN]["text_area"].max() == 0 and seen[CLEAN]["text_words"].max() == 0
    assert not seen[CLEAN]["text_stock_mark"].any() and not seen[SIGN]["text_stock_mark"].any()
    for what, area_of_letters in ((AGENCY, 0.05), (TILES, 0.15), (SIGN, 0.1)):
        least = area_of_letters / 2
        assert sum(least < share < 0.5 for share in seen[what]["text_area"]) >= len(PHOTOGRAPHS) - 1
    for what in (AGENCY, TILES):
        assert seen[what]["text_stock_mark"].sum() >= len(PHOTOGRAPHS) - 1
    # The reader may leave out a space.
    assert sum(2 <= words <= 4 for words in seen[SIGN]["text_words"]) >= len(PHOTOGRAPHS) - 1


@pytest.mark.real
def test_the_same_picture_has_the_same_text_however_often_and_on_whatever_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(tmp_path, [drawn(name, TILES) for name in PHOTOGRAPHS[:3]] * 2)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(scores(tmp_path, "text_in_picture", {}).drop("uid", "row"))
    assert found[0].equals(found[1])
    assert found[0].head(3).equals(found[0][3:6])


@pytest.mark.real
def test_a_picture_of_any_shape_has_a_score(tmp_path: Path) -> None:
    shapes = [(1, 1), (1, 900), (900, 1), (3, 2), (31, 8000), (4000, 100)]
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    write_part(tmp_path, pictures)
    found = scores(tmp_path, "text_in_picture", {}).head(len(shapes))
    assert found["text_words"].null_count() == 0


def test_a_large_picture_is_reduced_before_it_is_read() -> None:
    assert reduced(np.zeros((4000, 2000, 3), np.uint8), 960).shape == (960, 480, 3)
    assert reduced(np.zeros((1, 4000, 3), np.uint8), 960).shape == (1, 960, 3)
    assert reduced(np.zeros((960, 480, 3), np.uint8), 960).shape == (960, 480, 3)


def test_the_area_of_lines_that_overlap_counts_once() -> None:
    left, over = [[0, 0], [49, 0], [49, 9], [0, 9]], [[25, 0], [74, 0], [74, 9], [25, 9]]
    assert area([], 100, 100) == 0
    assert area([Line(left, "a")], 100, 100) == 0.05
    assert area([Line(left, "a"), Line(over, "b")], 100, 100) == 0.075


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["shutterst6ck 12345"], True),
        (["www.Shutter", "stock.com"], True),
        (["by getty lmages"], True),
        (["iStock"], True),
        (["lStock"], True),
        (["A1amy"], True),
        (["@ depositphotos"], True),
        (["123RF"], True),
        (["PREVIEW", "PREVIEW", "PREV1EW"], True),
        (["proof", "PROOF", "Proof"], True),
        (["SAMPLE SAMPLE", "SAMPLEISAMPLE"], True),
        (["the end of the day", "of the week", "and of the year"], False),
        (["buy bread", "buy butter", "buy bread", "buy milk"], False),
        (["PREVIEW", "PREVIEW"], False),
        (["taxi", "bus", "tram", "taxi"], False),
        (["20", "20", "20", "1999", "1999", "1999"], False),
        (["getty museum"], False),
        (["stock exchange"], False),
        (["to", "to", "to"], False),
        ([], False),
        (["", "-", "—"], False),
    ],
)
def test_a_stock_mark_names_an_agency_or_says_the_same_three_times(texts: list[str], expected: bool) -> None:
    assert is_stock_mark(texts) is expected


def test_a_plan_says_which_package_is_missing_and_how_it_is_installed(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("without-ocr")
    project.edit("config/datasets/demo.yaml", {"scorers": {"text_in_picture": {}}})
    command = ["snakemake", "-n", "filter"]
    assert "rule score_part" in project.run(*command)
    project.hide("rapidocr_onnxruntime")
    output = project.run(*command, check=False)
    assert (
        "config/datasets/demo.yaml: scorers: text_in_picture needs rapidocr_onnxruntime, which is not"
        in output
    )
    assert "run `uv pip install -e '.[ocr]'`" in output and "rule score_part" not in output
    project.edit("config/datasets/demo.yaml", {"scorers": {"text_in_picture": None}})
    (project.folder / "prompts.txt").write_text('a sign that says "open"\n')
    drawn = {"draw": {"prompts": {"kind": "file", "path": "prompts.txt"}}, "measure": {"text_rendering": {}}}
    project.edit("config/runs/demo.yaml", drawn)
    output = project.run(*command[:-1], "measure", check=False)
    refused = "config/runs/demo.yaml: measure.text_rendering needs rapidocr_onnxruntime, which is not"
    assert refused in output and "rule measure_metric" not in output
    gates = {"gates": [{"kind": "quoted_text"}]}
    project.edit("config/datasets/demo.yaml", {"caption_gates": gates})
    output = project.run(*command[:-1], "recaption", check=False)
    refused = "config/datasets/demo.yaml: caption_gates: quoted_text needs rapidocr_onnxruntime, which is not"
    assert refused in output and "rule recaption_part" not in output
