"""The result table of a run as Markdown, for a README; a test holds the README to it."""

from collections.abc import Mapping
from typing import Any

from darkroom.evaluate.geneval import TASKS
from darkroom.report.results import TASK_NAMES

_DISTANCES = {
    "clip_score": ("CLIP score", 1),
    "frechet_clip_distance": ("Fréchet distance on CLIP features", 3),
    "kernel_clip_distance": ("kernel distance on CLIP features", 4),
}


def results_markdown(metrics: Mapping[str, Any]) -> str:
    """GenEval by task with 95% intervals, then the distances: trained against untrained.

    Args:
        metrics: the content of the evaluate stage's metrics.json.
    """
    models = [name for name in ("trained", "untrained") if name in metrics]
    lines = ["| | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    for task in ("overall", *TASKS):
        cells = [_interval(metrics[model]["geneval"], task) for model in models]
        lines.append(f"| {TASK_NAMES[task]} | {' | '.join(cells)} |")
    for key, (name, digits) in _DISTANCES.items():
        cells = [f"{metrics[model][key]:.{digits}f}" for model in models]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(scores: Mapping[str, float], task: str) -> str:
    return f"{scores[task]:.2f} ({scores[f'{task}_low']:.2f} to {scores[f'{task}_high']:.2f})"
