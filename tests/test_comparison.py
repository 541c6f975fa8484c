"""Several runs compared: a table for READMEs and papers, and a page with their pictures side by side."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from report_inputs import HOSTILE, make_inputs
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.evaluate.compare import compare
from darkroom.evaluate.comparison import comparison_latex, comparison_markdown, comparison_rows
from darkroom.report.comparison import build_comparison
from darkroom.store import read_table, write_table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of three runs on the same prompts: the second draws as the first does, the third is always wrong."""
    root = tmp_path_factory.mktemp("compared")
    made = make_inputs(root / "made")
    for run in ("first", "same_100%", "worst"):
        folder = root / "results/runs" / run
        shutil.copytree(made.pictures, folder / "draw/pictures")
        (folder / "evaluate").mkdir()
        prompt = pl.when(pl.col("prompt_index") == 0).then(pl.lit(HOSTILE)).otherwise("prompt")
        table = read_table(made.prompts).with_columns(prompt=prompt)
        body = json.loads(made.metrics.read_text())
        if run == "worst":
            table = table.with_columns(correct=pl.lit(False), clip_score=pl.col("clip_score") - 5)
            body["trained"]["frechet_clip_distance"] += 1
        write_table(folder / "evaluate/prompts.parquet", table, sort_by=None)
        (folder / "evaluate/metrics.json").write_text(json.dumps(body))
    return root


def folders(root: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted((root / "results/runs").iterdir())}


def found(root: Path) -> dict[str, dict]:
    return compare({name: path / "evaluate" for name, path in folders(root).items()}, num_resamples=50)


def test_every_run_has_its_scores_and_its_differences_to_the_first(root: Path) -> None:
    compared = found(root)
    assert list(compared["scores"]) == ["first", "same_100%", "worst"]
    assert list(compared["differences"]) == ["same_100%", "worst"]
    rows = {row.label: row for row in comparison_rows(compared)}
    geneval = rows["GenEval, overall"]
    assert geneval.scores[0] == geneval.scores[1] and geneval.scores[2].value == "0.00"
    assert str(geneval.differences[0]) == "+0.00 (+0.00 to +0.00)"
    assert geneval.differences[1].value == f"-{geneval.scores[0].value}"
    assert str(rows["CLIPScore"].differences[1]) == "-5.0 (-5.0 to -5.0)"
    assert str(rows["Fréchet distance on CLIP features"].differences[1]) == "+1.000"
    lines = comparison_markdown(compared).splitlines()
    assert lines[0] == "| | first | same_100% | worst | same_100% - first | worst - first |"
    assert all(line.count("|") == 7 for line in lines)


def test_the_table_for_latex_escapes_names_and_points_to_what_is_better(root: Path) -> None:
    lines = comparison_latex(found(root)).splitlines()
    assert lines[:3] == [r"\begin{tabular}{lrrr}", r"\toprule", r" & first & same\_100\% & worst \\"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    (overall,) = [line for line in lines if line.startswith("GenEval, overall")]
    assert re.fullmatch(
        r"GenEval, overall \$\\uparrow\$( & \$[01]\.\d\d\$ \{\\small \([01]\.\d\d--[01]\.\d\d\)\}){3} \\\\",
        overall,
    )
    assert any(line.startswith(r"Fréchet distance on CLIP features $\downarrow$") for line in lines)
    assert all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in lines[4:-2])


def test_the_page_shows_what_each_run_drew_and_runs_nothing_of_what_prompts_say(root: Path) -> None:
    page = build_comparison(folders(root), root / "page.html", prompts_per_task=2, max_pictures=1).read_text()
    prompts = len(re.findall('<p class="prompt">', page))
    assert 6 <= prompts <= 12 and page.count("<img") == 3 * prompts
    assert page.count('<div class="label">worst</div>') == prompts and "<script" not in page
    assert HOSTILE not in page and page.count("&lt;script&gt;") >= 1 and "default-src 'none'" in page
    again = build_comparison(folders(root), root / "again.html", prompts_per_task=2, max_pictures=1)
    assert again.read_text() == page


def test_the_command_takes_any_number_of_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    runs = list(folders(root))
    told = CliRunner().invoke(app, ["compare", *runs, "--latex", "--page", "side-by-side.html"])
    assert told.exit_code == 0, told.output
    assert told.output.startswith(r"\begin{tabular}") and "side-by-side.html written" in told.output
    assert (root / "side-by-side.html").stat().st_size > 10_000
    twice = CliRunner().invoke(app, ["compare", "first", "first"])
    assert twice.exit_code == 2 and "name every run once" in twice.output
