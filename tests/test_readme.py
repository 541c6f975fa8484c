"""The README tells what was published: its table is the committed metrics, its picture is there."""

import json
from pathlib import Path

import pytest
import yaml

from darkroom.report.table import results_markdown

ROOT = Path(__file__).parents[1]
METRICS = ROOT / "results/runs/demo/evaluate/metrics.json"


def test_the_result_table_is_that_of_the_committed_metrics() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    between = readme.split("<!-- results -->\n")[1].split("<!-- /results -->")[0]
    assert between == results_markdown(json.loads(METRICS.read_text()))


def test_the_published_model_is_better_than_the_untrained_one_beyond_its_interval() -> None:
    scores = json.loads(METRICS.read_text())
    assert scores["difference"]["geneval"]["overall_low"] > 0
    assert scores["trained"]["frechet_clip_distance"] < scores["untrained"]["frechet_clip_distance"]


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs/demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("stage", ["download", "filter", "recaption", "bucket", "cache", "train", "evaluate"])
def test_the_committed_lock_was_made_with_the_committed_configuration(stage: str) -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"][f"{stage}@demo"]
    for file, sections in lock["params"].items():
        values = yaml.safe_load((ROOT / file).read_text())
        for section, recorded in sections.items():
            assert values[section] == recorded, f"{file}: {section} changed since dvc.lock was written"
