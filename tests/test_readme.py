"""The README tells what was published: its table is the committed metrics, its picture is there."""

import json
from pathlib import Path

import pytest
import yaml

from darkroom.config import load_project
from darkroom.publish import stage_name
from darkroom.publish.add import out_of_step
from darkroom.publish.readme import readme_text

ROOT = Path(__file__).parents[1]
METRICS = ROOT / "published/evaluate-demo/metrics.json"


def test_the_tables_are_those_of_what_is_published() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_text(readme, ROOT) == readme, "give `darkroom publish --write`"
    changed = readme.replace("| GenEval, overall | 0.", "| GenEval, overall | 9.")
    assert changed != readme and readme_text(changed, ROOT) == readme


def test_cards_and_bundles_are_those_of_what_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert out_of_step() == [], "give `darkroom publish --write`"


def test_the_published_model_is_better_than_the_untrained_one_beyond_its_interval() -> None:
    scores = json.loads(METRICS.read_text())
    assert scores["difference"]["geneval"]["overall_low"] > 0
    assert scores["trained"]["frechet_clip_distance"] < scores["untrained"]["frechet_clip_distance"]


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs/demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "stage",
    ["download", "score", "filter", "recaption", "bucket", "cache", "train", "draw", "measure", "evaluate"],
)
def test_the_committed_lock_was_made_with_the_committed_configuration(stage: str) -> None:
    name = stage_name(load_project("demo", ROOT), stage)
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"][name]
    for file, sections in lock["params"].items():
        values = yaml.safe_load((ROOT / file).read_text())
        for section, recorded in sections.items():
            assert values[section] == recorded, f"{file}: {section} changed since dvc.lock was written"
