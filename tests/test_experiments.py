"""The experiments of docs/experiments run, and their pages have the form of what they print."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import warm
from doc_pages import DOCS, ROOT, rows_after
from PIL import Image

HEADER = "| Objective | Prompt | Right | Mean brightness | Range | Within 0.1 |"


def run(name: str, out: Path, **options: int) -> str:
    arguments = [
        text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))
    ]
    command = ["python", f"experiments/{name}.py", "--out", str(out), *arguments]
    environment = warm.jobs.environment({**os.environ, "OMP_NUM_THREADS": "1"})
    return subprocess.run(
        command, cwd=ROOT, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout


def test_zero_terminal_snr_prints_the_table_of_its_page_and_writes_its_picture(tmp_path: Path) -> None:
    few = {"num_steps": 2, "num_scenes": 4, "num_plain": 2, "num_pictures": 2}
    output = run("zero_terminal_snr", tmp_path, **few)
    table = (tmp_path / "zero-terminal-snr.md").read_text()
    assert table in output
    page = (DOCS / "experiments" / "zero-terminal-snr.md").read_text()
    drawn, documented = rows_after(table + "\n\n", HEADER), rows_after(page, HEADER)
    assert len(drawn) == 6 and [cells[:3] for cells in drawn] == [cells[:3] for cells in documented]
    for cells in [*drawn, *documented]:
        right, mean = float(cells[2]), float(cells[3])
        least, most = (float(end) for end in cells[4].split(" to "))
        assert 0 <= least <= mean + 0.005 and mean - 0.005 <= most <= 1
        assert cells[5] == ("yes" if abs(mean - right) <= 0.1 else "no")
    with Image.open(tmp_path / "zero-terminal-snr.png") as sheet:
        # Two pictures of each prompt and objective: six rows of two cells of 128 px.
        assert sheet.width == 2 * (128 + 6) + 6 and sheet.height > 6 * 128


def test_longer_context_prints_the_table_of_its_page_and_step_0_is_the_base_model(tmp_path: Path) -> None:
    output = run("longer_context", tmp_path, num_steps=2, num_train=32, num_pictures=1)
    table = (tmp_path / "longer-context.md").read_text()
    assert table in output and "bit for bit: True" in output
    page = (DOCS / "experiments" / "longer-context.md").read_text()
    header = "| Training | GenEval, colours | Pictures |"
    drawn, documented = rows_after(table + "\n\n", header), rows_after(page, header)
    assert len(drawn) == 3 and [cells[0] for cells in drawn] == [cells[0] for cells in documented]
    assert all(0 <= float(cells[1]) <= 1 for cells in [*drawn, *documented])
    assert [cells[2] for cells in drawn] == ["4"] * 3
    with Image.open(tmp_path / "longer-context.png") as sheet:
        assert sheet.width == 4 * (128 + 6) + 6 and sheet.height > 3 * 128


CHANGE = re.compile(r"(-?\d\.\d{3}): ([+-]\d\.\d{3}) \(([+-]\d\.\d{3}) to ([+-]\d\.\d{3})\)")


def test_dreambooth_learns_from_the_class_pictures_that_darkroom_sample_drew(tmp_path: Path) -> None:
    few = {"num_base_steps": 2, "num_steps": 2, "num_train": 32, "num_class": 4, "num_pictures": 3}
    output = run("dreambooth", tmp_path, **few)
    table = (tmp_path / "dreambooth.md").read_text()
    assert table in output
    page = (DOCS / "experiments" / "dreambooth.md").read_text()
    header = "| Pictures | Measure | base model | with prior preservation | without |"
    drawn, documented = rows_after(table + "\n\n", header), rows_after(page, header)
    assert len(drawn) == 5 and [cells[:2] for cells in drawn] == [cells[:2] for cells in documented]
    for cells in [*drawn, *documented]:
        for cell in cells[3:]:
            mean, change, low, high = (float(number) for number in CHANGE.fullmatch(cell).groups())
            assert mean - float(cells[2]) == pytest.approx(change, abs=0.0016)
            assert low - 0.001 <= change <= high + 0.001
    with Image.open(tmp_path / "dreambooth.png") as sheet:
        assert sheet.width == 6 * (96 + 6) + 6 and sheet.height > 7 * 96


def test_the_page_of_dreambooth_tells_which_marks_its_table_meets() -> None:
    page = (DOCS / "experiments" / "dreambooth.md").read_text()
    rows = rows_after(page, "| Pictures | Measure | base model | with prior preservation | without |")
    changes = [[float(CHANGE.fullmatch(cell)[2]) for cell in cells[3:]] for cells in rows]
    rise, of_class = changes[0][0], changes[1]
    assert rise >= 0.1 and abs(of_class[0]) < 0.03 and of_class[1] < -0.05


def test_phases_begin_where_the_one_before_ended_and_not_in_noise(tmp_path: Path) -> None:
    output = run("phases", tmp_path, num_first_steps=25, num_steps=10, num_scenes=32)
    table = (tmp_path / "phases.md").read_text()
    assert table in output
    page = (DOCS / "experiments" / "phases.md").read_text()
    header = "| Training | Size | First 10 steps' loss | Last 10 steps' loss |"
    drawn, documented = rows_after(table + "\n\n", header), rows_after(page, header)
    assert [cells[:2] for cells in drawn] == [cells[:2] for cells in documented] and len(drawn) == 3
    for rows in (drawn, documented):
        (_, ended), (begun, _), (noise, _) = ([float(cell) for cell in cells[2:]] for cells in rows)
        assert abs(begun - ended) < abs(begun - noise)
    with Image.open(tmp_path / "phases.png") as curves:
        assert curves.size == (792, 440)


def test_brightness_counts_the_shades_that_one_caption_was_told_of(tmp_path: Path) -> None:
    output = run("brightness", tmp_path, num_steps=2, num_train=9, num_pictures=4)
    table = (tmp_path / "brightness.md").read_text()
    assert table in output
    page = (DOCS / "experiments" / "brightness.md").read_text()
    header = "| Pictures | Number | black | grey | white | none of them | Mean brightness | 95 % interval |"
    drawn, documented = rows_after(table + "\n\n", header), rows_after(page, header)
    assert [cells[0] for cells in drawn] == [cells[0] for cells in documented] and len(drawn) == 3
    for cells in [*drawn, *documented]:
        assert sum(float(share) for share in cells[2:6]) == pytest.approx(1, abs=0.02)
        low, high = (float(end) for end in cells[7].split(" to "))
        assert low <= float(cells[6]) <= high
    assert drawn[0][2:6] == ["0.33", "0.33", "0.33", "0.00"]
    with Image.open(tmp_path / "brightness.png") as sheet:
        assert sheet.width == 8 * (80 + 6) + 6 and sheet.height > 3 * 80
