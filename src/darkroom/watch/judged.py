"""Judged steps: their scores, which is the best, and whether there is hope of a better one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.metrics.table import METRICS
from darkroom.store import write_json

_STOPPED = "stopped_after"


@dataclass(frozen=True)
class Judged:
    """One judged step, as `judge_step` wrote it; `scores` by metric, of nested ones the main score.

    bounds: of their 95 % intervals, where there are any.
    """

    step: int
    model: str
    scores: Mapping[str, float]
    bounds: Mapping[str, tuple[float, float]]
    protocol: Mapping[str, Any]


def read_judged(paths: Sequence[str | Path]) -> list[Judged]:
    """What `judge_step` wrote; nothing of the steps that the training did not come to."""
    bodies = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    return [_judged(body) for body in bodies if _STOPPED not in body]


def write_not_reached(path: str | Path, step: int, after: int) -> None:
    """Write, instead of scores, that the training had stopped `after` a step before this one."""
    write_json(path, {"step": step, _STOPPED: after})


def _judged(body: Mapping[str, Any]) -> Judged:
    scores, bounds = {}, {}
    for name, metric in METRICS.items():
        key = metric.main_score
        found = body["scores"].get(name, {}) if metric.is_nested else body["scores"]
        if key in found:
            scores[name] = float(found[key])
        if f"{key}_low" in found:
            bounds[name] = float(found[f"{key}_low"]), float(found[f"{key}_high"])
    return Judged(int(body["step"]), body["model"], scores, bounds, body["protocol"])


def best_of(judged: Sequence[Judged], metric: str) -> Judged:
    """The step with the best score, of several the first."""
    sign = 1 if METRICS[metric].direction == "higher" else -1
    return max(judged, key=lambda found: (sign * found.scores[metric], -found.step))


def is_enough(judged: Sequence[Judged], metric: str, patience: int | None) -> bool:
    """Whether none of the last `patience` of these steps, which are in order, is better than those before."""
    if patience is None or len(judged) <= patience:
        return False
    return len(judged) - 1 - judged.index(best_of(judged, metric)) >= patience
