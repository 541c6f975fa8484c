"""README's tables of published results, from what Git tracks of them.

The table of all runs stands between BEGIN and END, that of one run between `<!-- results of RUN -->` and
`<!-- /results -->`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.config import load_project
from darkroom.evaluate.scores import score_names
from darkroom.metrics.base import Metric
from darkroom.publish.listed import published_runs
from darkroom.publish.stages import stage_name
from darkroom.publish.tracked import tracked_path
from darkroom.report.results import measured
from darkroom.report.table import results_markdown

README = "README.md"
BEGIN, END = "<!-- published -->", "<!-- /published -->"
_OF_ALL = re.compile(rf"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
_OF_ONE = re.compile(r"(<!-- results of (\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def readme_text(text: str, root: str | Path = ".") -> str:
    """A README with its tables brought up to date.

    Raises:
        ConfigError: the list of published runs, or one of the runs, is wrong.
    """
    text = _OF_ALL.sub(lambda found: found[1] + published_markdown(root) + found[2], text)
    return _OF_ONE.sub(lambda found: found[1] + _results(found[2], root) + found[3], text)


def published_markdown(root: str | Path = ".") -> str:
    """A row for each published run: its prompts, and its headline scores, trained and untrained.

    Raises:
        ConfigError: the list of published runs, or one of the runs, is wrong.
    """
    found: dict[str, dict[str, str]] = {}
    columns: dict[str, str] = {}
    prompts: dict[str, str] = {}
    for run in published_runs(root):
        metrics, found[run] = _metrics(run, root), {}
        prompts[run] = _prompts(metrics["protocol"]["prompts"]) if metrics else ""
        for metric in measured(metrics) if metrics else []:
            columns[metric.name] = metric.label
            found[run][metric.name] = _cell(metric, metrics)
    lines = [_row("run", "prompts", *columns.values()), _row(*["---"] * (len(columns) + 2)).replace(" ", "")]
    for run, cells in found.items():
        lines.append(_row(_linked(run, root), prompts[run], *(cells.get(name, "") for name in columns)))
    return "\n".join(lines) + "\n"


def _results(run: str, root: str | Path) -> str:
    metrics = _metrics(run, root)
    return results_markdown(metrics) if metrics else f"{run} is not published yet.\n"


def _metrics(run: str, root: str | Path) -> dict[str, Any]:
    path = Path(root) / tracked_path(stage_name(load_project(run, root), "evaluate"), "metrics.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _prompts(protocol: Mapping[str, Any]) -> str:
    """`24 (shapes)`: scores of other prompts do not compare. Of a file, its name."""
    return f"{protocol['number']} ({Path(protocol['name']).stem})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _linked(run: str, root: str | Path) -> str:
    card = Path("published/runs") / run / "README.md"
    return f"[{run}]({card})" if (Path(root) / card).is_file() else f"[{run}](config/runs/{run}.yaml)"


def _cell(metric: Metric, metrics: Mapping[str, Any]) -> str:
    """`0.86 (0.79 to 0.97), untrained 0.03`."""
    trained = _score(metric, metrics["trained"])
    return trained + (
        f", untrained {_score(metric, metrics['untrained'], False)}" if "untrained" in metrics else ""
    )


def _score(metric: Metric, scores: Mapping[str, Any], with_interval: bool = True) -> str:
    """A metric's one number: of a metric by task, that of all tasks together; of parts, the first."""
    body, key = scores, metric.name
    if metric.is_nested:
        body = scores[metric.name]
        key = next(iter(score_names(metric, body)))
    text = f"{body[key]:.{metric.digits}f}"
    low, high = body.get(f"{key}_low"), body.get(f"{key}_high")
    if not with_interval or low is None or high is None:
        return text
    return f"{text} ({low:.{metric.digits}f} to {high:.{metric.digits}f})"
