"""A result that was made again agrees with the published one, score by score, or is said to differ."""

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm

from darkroom.evaluate.agreement import agreement_lines, agreements

ROOT = Path(__file__).parents[1]
PUBLISHED: dict[str, Any] = {
    "trained": {
        "clip": 60.0, "clip_low": 58.0, "clip_high": 62.0, "frechet": 0.3,
        "geneval": {"position": 1.0, "position_low": 1.0, "position_high": 1.0},
    },
    "difference": {"clip": 40.0, "clip_low": 37.0, "clip_high": 43.0},
    "protocol": {"seed": 0, "models": {"trained": "a"}},
}  # fmt: skip


def changed(**scores: float) -> dict[str, Any]:
    body = copy.deepcopy(PUBLISHED)
    body["trained"].update(scores)
    body["protocol"]["models"] = {"trained": "b"}
    return body


def verdicts(here: dict[str, Any]) -> dict[str, bool | None]:
    return {row.name: row.agrees for row in agreements(here, PUBLISHED)}


def test_a_score_within_the_published_interval_agrees_and_one_beyond_it_does_not() -> None:
    assert verdicts(changed(clip=58.1, clip_low=56.0, clip_high=59.5)) == {
        "trained.clip": True,
        "trained.frechet": None,
        "trained.geneval.position": True,
        "difference.clip": True,
    }
    found = agreements(changed(clip=55.0, clip_low=54.0, clip_high=56.0), PUBLISHED)
    assert [row.name for row in found if row.agrees is False] == ["trained.clip"]
    assert "DIFFERS" in agreement_lines(found)[0]


def test_where_the_published_interval_has_no_width_the_other_one_decides() -> None:
    here = changed()
    here["trained"]["geneval"] = {"position": 0.97, "position_low": 0.9, "position_high": 1.0}
    assert verdicts(here)["trained.geneval.position"] is True
    here["trained"]["geneval"] = {"position": 0.5, "position_low": 0.4, "position_high": 0.6}
    assert verdicts(here)["trained.geneval.position"] is False


def test_a_distance_without_an_interval_is_shown_and_not_judged() -> None:
    rows = agreements(changed(frechet=9.0), PUBLISHED)
    assert [row.here.value for row in rows if row.agrees is None] == [9.0]
    assert "no interval was published" in "\n".join(agreement_lines(rows))


def test_of_an_unlike_protocol_what_differs_is_named_and_nothing_else() -> None:
    here, published = copy.deepcopy(PUBLISHED), copy.deepcopy(PUBLISHED)
    here["protocol"]["clip"] = {"name": "demo-clip", "pictures": {"real": 1000, "drawn": 528}}
    published["protocol"]["clip"] = {"name": "demo-clip", "pictures": {"real": 1000, "drawn": 408}}
    with pytest.raises(ValueError, match=r"^protocol\.clip\.pictures\.drawn is 528 here and 408 published;"):
        agreements(here, published)


def test_another_protocol_and_other_metrics_are_refused() -> None:
    here = changed()
    here["protocol"]["seed"] = 1
    with pytest.raises(ValueError, match=r"protocol\.seed is 1 here and 0 published"):
        agreements(here, PUBLISHED)
    with pytest.raises(ValueError, match=r"trained\.more is not published"):
        agreements(changed(more=1.0), PUBLISHED)


def test_the_command_ends_with_0_or_1_and_says_what_is_missing(tmp_path: Path) -> None:
    for name in ("config", "published"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "src").symlink_to(ROOT / "src")

    def compare() -> subprocess.CompletedProcess[str]:
        environment = warm.jobs.environment(os.environ)
        return subprocess.run(
            ["darkroom", "compare", "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    nothing = compare()
    assert nothing.returncode == 2 and "missing" in nothing.stderr
    here = tmp_path / "results/runs/demo/evaluate/metrics.json"
    here.parent.mkdir(parents=True)
    body = json.loads((ROOT / "published/evaluate-demo/metrics.json").read_text())
    here.write_text(json.dumps(body))
    same = compare()
    assert same.returncode == 0 and "scores agree with the published ones of demo" in same.stdout
    body["trained"]["clip_score"] = body["trained"]["clip_score_low"] = body["trained"]["clip_score_high"] = (
        1.0
    )
    here.write_text(json.dumps(body))
    other = compare()
    assert other.returncode == 1 and "DIFFERS" in other.stdout
