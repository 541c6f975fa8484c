"""The page of all runs: a table that is sorted in the browser, costs, and pictures side by side."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from browser import in_chromium, needs_browser
from report_inputs import HOSTILE, make_inputs
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config import load_project
from darkroom.stages import folder
from darkroom.store import read_table, write_manifest, write_table

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs: the second draws what the first does, the third was judged in another way, the fourth is new."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for path in (tmp_path / "config/runs").iterdir():
        if path.name != "demo.yaml":
            path.unlink()
    monkeypatch.chdir(tmp_path)
    made = make_inputs(tmp_path / "made")
    body = json.loads(made.metrics.read_text())
    for number, name in enumerate(("second", "third", "fourth")):
        settings = {"extends": "demo", "description": f"{HOSTILE} number {number}"}
        Path(f"config/runs/{name}.yaml").write_text(yaml.safe_dump(settings))
    for number, name in enumerate(("demo", "second", "third")):
        here = folder(load_project(name), "evaluate").parent
        shutil.copytree(made.pictures, here / "draw/pictures")
        (here / "evaluate").mkdir()
        scores = json.loads(json.dumps(body))
        scores["trained"]["frechet_clip_distance"] = 0.5 + number
        if name == "third":
            scores["protocol"]["geneval"] = {**scores["protocol"].get("geneval", {}), "threshold": 0.9}
            scores["protocol"]["seed"] = 7
        write_table(here / "evaluate/prompts.parquet", read_table(made.prompts), sort_by=None)
        (here / "evaluate/metrics.json").write_text(json.dumps(scores))
        counts = {"steps": 100 * (number + 1), "num_parameters": 7}
        write_manifest(here / "train/manifest.json", stage="train", params={}, counts=counts)
        logs = Path("logs/runs", name, "train")
        logs.mkdir(parents=True)
        (logs / "train.tsv").write_text(f"s\tmax_rss\n{90 - 10 * number}\t{1000 + number}\n")
    return tmp_path


def page(*arguments: str) -> str:
    told = CliRunner().invoke(app, ["report", *arguments])
    assert told.exit_code == 0, told.output
    assert "runs: " in told.output
    return Path("results/runs.html").read_text()


def names(text: str) -> list[str]:
    """The runs of the table, in its order."""
    return re.findall(r'<tr>\s*<td data-text="(.*?)">', text)


def test_every_run_with_results_is_a_row_and_the_others_are_named(project: Path) -> None:
    told = CliRunner().invoke(app, ["report", "--all"])
    assert told.exit_code == 0 and "left out, without results: fourth" in told.output
    text = Path("results/runs.html").read_text()
    assert names(text) == ["demo", "second", "third"]
    assert HOSTILE not in text and "&lt;script&gt;" in text and text.count("<script>") == 1
    assert page("--all") == text
    assert "1 min 30 s" in text and "1 min 20 s" in text


def test_scores_that_were_measured_unlike_stand_in_columns_of_their_own(project: Path) -> None:
    text = page("--all")
    headings = [re.sub("<.*?>", "", th) for th in re.findall(r"<th.*?</th>", text)]
    # The third run's seed is another, and so are all of its scores.
    assert "GenEval¹" in headings and "GenEval²" in headings
    assert "<dt>geneval.threshold</dt><dd>0.9</dd>" in text and "<dt>seed</dt><dd>7</dd>" in text
    alike = page("demo", "second")
    assert "¹" not in alike and "<h3>Measured in several ways</h3>" not in alike


def test_pictures_of_the_same_prompts_and_noise_stand_side_by_side(project: Path) -> None:
    text = page("--all", "--out", "results/runs.html")
    assert "<h3>demo, second</h3>" in text and "<h3>third</h3>" in text
    assert "No other run drew the same prompts from the same noise." in text
    assert text.count('<div class="label">demo</div>') == text.count('<div class="label">second</div>') > 0
    assert '<div class="label">third</div>' not in text


def test_what_was_published_is_shown_in_a_clone_without_results(project: Path) -> None:
    shutil.rmtree("results/runs")
    shutil.copytree(ROOT / "published", "published")
    text = page("--all")
    assert names(text) == ["demo"]
    assert "scores as published; its results are not here" in text


def test_wrong_names_and_empty_projects_are_told(project: Path) -> None:
    for arguments, told in [
        (["--all", "demo"], "name runs, or give --all"),
        ([], "name runs, or give --all"),
        (["demo", "demo"], "name every run once"),
        (["demi"], "did you mean 'demo'"),
    ]:
        result = CliRunner().invoke(app, ["report", *arguments], terminal_width=200)
        assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    shutil.rmtree("results/runs")
    assert CliRunner().invoke(app, ["report", "--all"]).exit_code == 1
    Path("config/runs/second.yaml").write_text("extends: demo\nseeds: 1\n")
    assert "did you mean" in page("demo", "second")


@needs_browser
@pytest.mark.parametrize("width", [390, 1400])
def test_in_a_browser_headings_sort_by_keyboard_and_nothing_runs_over_the_side(
    project: Path, width: int
) -> None:
    page("--all")
    path = Path("results/runs.html")
    assert re.search('role="status">Sorted', in_chromium(path, width)) is None
    script = (
        "const heading = [...document.querySelectorAll('th button')].find((b) => b.textContent == 'Training');"
        "heading.focus();"
        "const order = () => [...document.querySelectorAll('#runs tbody tr')].map((r) => r.cells[0].dataset.text);"
        "const told = [];"
        "for (let i = 0; i < 2; i++) { document.activeElement.click(); told.push(order().join(' ')); }"
        "const wide = document.documentElement.scrollWidth <= window.innerWidth;"
        "document.title = [...told, document.getElementById('sorted').textContent, wide].join('|');"
    )
    text = re.sub(r"<meta http-equiv.*?>", "", path.read_text())
    path.write_text(text.replace("</body>", f"<script>{{ {script} }}</script></body>"))
    (title,) = re.findall(r"<title>(.*?)</title>", in_chromium(path, width), re.DOTALL)
    assert title == "third second demo|demo second third|Sorted by Training, descending.|true"
