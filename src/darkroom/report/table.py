"""The result table of a run as Markdown, for a README; a test holds the README to it."""

from collections.abc import Mapping
from typing import Any

from darkroom.evaluate.scores import score_names
from darkroom.metrics.base import Metric
from darkroom.report.results import MODELS, measured


def results_markdown(metrics: Mapping[str, Any]) -> str:
    """Every metric that was measured: trained against untrained, shares by task with 95% intervals.

    Args:
        metrics: the content of the evaluate stage's metrics.json.
    """
    metrics = dict(metrics)
    models = [name for name in MODELS if name in metrics]
    lines = ["| | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    for metric in measured(metrics):
        if metric.is_nested:
            for key, label in score_names(metric, metrics["trained"][metric.name]).items():
                cells = [_interval(metric, metrics[model][metric.name], key) for model in models]
                lines.append(f"| {label} | {' | '.join(cells)} |")
        else:
            cells = [f"{metrics[model][metric.name]:.{metric.digits}f}" for model in models]
            lines.append(f"| {metric.label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(metric: Metric, scores: Mapping[str, float], key: str) -> str:
    if key not in scores:
        return "-"
    value, low, high = (f"{scores[key + end]:.{metric.digits}f}" for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"
