"""The averaged weights of one step, judged: pictures of the prompts, and the metrics on them."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.benchmarks.base import Record
from darkroom.captioners.scratch import forget, scratch_folder
from darkroom.components.base import Component
from darkroom.config.run import Draw, Evaluate
from darkroom.draw.chunks import chunk_names
from darkroom.draw.stage import draw_chunk, draw_protocol, load_drawer
from darkroom.evaluate.scores import score
from darkroom.evaluate.stage import join, rounded
from darkroom.metrics.base import Inputs, Measured
from darkroom.metrics.extracted import Asked, Features
from darkroom.metrics.references import References
from darkroom.metrics.table import METRICS
from darkroom.settings.base import Section
from darkroom.store import sha256_path, write_json
from darkroom.store.drawn import Drawn

_LOG = logging.getLogger(__name__)
# As the finished model is called, so that its tables and scores are the same.
MODEL = "trained"


@dataclass(frozen=True)
class JudgeInputs:
    """What a step is judged with.

    draw: how pictures are drawn (`Watch.draw`). records: of which prompts. evaluate: of the intervals.
    metrics: name -> options, of those that are measured. components: those that they name.
    references: real pictures, where a metric compares with them. features: files of those of their features that
    were computed before.
    """

    draw: Draw
    evaluate: Evaluate
    records: Sequence[Record]
    metrics: Mapping[str, Section]
    components: Mapping[str, Component]
    references: References | None = None
    features: Mapping[Asked, Sequence[Path]] = field(default_factory=dict)


def judge_step(step: int, model: str | Path, inputs: JudgeInputs, out: str | Path) -> dict[str, int]:
    """Draw, measure and write the scores of a step as JSON; return counts.

    Args:
        model: the folder of its averaged pipeline.
        out: JSON file to write: `step`, `model` (the folder's digest), `scores` and `protocol` as metrics.json
            has them, and `dtype`, what it was drawn in.

    Raises:
        ValueError: pictures or references are not what they should be.
        RuntimeError: a metric's instrument does not work.
    """
    with tempfile.TemporaryDirectory() as folder:
        drawn = _draw(Path(model), inputs, Path(folder) / MODEL)
        measured = _measure(drawn, inputs, Path(out))
        pictures = drawn.table()
    tables = {name: found.table for name, found in measured.items()}
    scores = score(MODEL, join(pictures, tables), tables, inputs.evaluate.num_bootstrap, inputs.draw.seed)
    protocols = {name: dict(found.protocol) for name, found in measured.items()}
    body = {
        "step": step,
        "model": sha256_path(model),
        "scores": rounded(scores),
        "protocol": {**draw_protocol(inputs.draw, inputs.records), **protocols},
    }
    write_json(out, body)
    forget(out, {"failed": [name for name, found in measured.items() if found.counts.get("failed")]})
    return {"pictures": pictures.height}


def _draw(model: Path, inputs: JudgeInputs, folder: Path) -> Drawn:
    folder.mkdir()
    drawer = load_drawer(model, model, inputs.draw)
    tables, tars = [], []
    for chunk in chunk_names(inputs.draw, len(inputs.records)):
        tar, table = folder / f"{chunk}.tar", folder / f"{chunk}.parquet"
        draw_chunk(MODEL, chunk, inputs.records, drawer, inputs.draw, tar, table)
        tars.append(tar)
        tables.append(table)
    return Drawn(tables, tars)


def _measure(drawn: Drawn, inputs: JudgeInputs, out: Path) -> dict[str, Measured]:
    """Metric -> what it found; pictures are encoded once for all that see them alike. What metrics keep until they
    are measured lies beside `out`."""
    features = Features(computed=inputs.features)
    found = {}
    for name, section in inputs.metrics.items():
        seen = Inputs(
            drawn={MODEL: drawn},
            records=inputs.records,
            components=inputs.components,
            references=inputs.references if METRICS[name].references else None,
            features=features,
            scratch=scratch_folder(out) / name,
        )
        found[name] = METRICS[name].measure(section, seen)
        _LOG.info("watch: %s, %s", name, found[name].protocol.get("definition", ""))
    return found
