"""The README tells what was published: its table is the committed metrics, its picture is there."""

import json
from pathlib import Path

import pytest

from darkroom.config import load_project
from darkroom.publish import published_runs, stage_entries, stage_name
from darkroom.publish.add import out_of_step
from darkroom.publish.dvclock import read_lock
from darkroom.publish.readme import readme_text
from darkroom.publish.recorded import current_options

ROOT = Path(__file__).parents[1]


def test_the_tables_are_those_of_what_is_published() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_text(readme, ROOT) == readme, "give `darkroom publish --write`"
    changed = readme.replace("| GenEval, overall | 0.", "| GenEval, overall | 9.")
    assert changed != readme and readme_text(changed, ROOT) == readme


def test_cards_and_bundles_are_those_of_what_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert out_of_step() == [], "give `darkroom publish --write`"


@pytest.mark.parametrize("run", published_runs(ROOT))
def test_a_published_model_is_better_than_the_untrained_one_beyond_its_interval(run: str) -> None:
    name = stage_name(load_project(run, ROOT), "evaluate")
    scores = json.loads((ROOT / f"published/{name}/metrics.json").read_text())
    assert scores["difference"]["geneval"]["overall_low"] > 0
    assert scores["difference"]["clip_score_low"] > 0
    assert scores["trained"]["frechet_clip_distance"] < scores["untrained"]["frechet_clip_distance"]


def test_every_recipe_has_a_published_twin() -> None:
    recipes = {path.stem for path in (ROOT / "docs/recipes").glob("*.md")} - {"README", "mended"}
    assert {f"{name}-tiny" for name in recipes} <= {*published_runs(ROOT)}


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs/demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_committed_lock_was_made_with_the_committed_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    locked, wanted = read_lock(), stage_entries()
    assert locked.keys() == wanted.keys()
    changed = [name for name, entry in wanted.items() if locked[name].params != current_options(entry)]
    assert changed == [], "changed since dvc.lock was written"
