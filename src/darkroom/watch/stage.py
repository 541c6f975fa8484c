"""The watch stage: the judged steps as a table, and the model of the best of them beside the last one's."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.metrics.table import METRICS
from darkroom.store import read_table, replacing, sha256_path
from darkroom.store.found import SNAKEMAKES_MARK
from darkroom.train.averages import link_or_copy
from darkroom.watch.judged import Judged, best_of, read_judged
from darkroom.watch.legs import stopped_after

_LOG = logging.getLogger(__name__)


def gather(
    scores: Sequence[str | Path],
    models: Sequence[str | Path],
    metric: str,
    history: str | Path,
    table: str | Path,
    best: str | Path,
) -> dict[str, Any]:
    """Write the table and the best step's model; return counts.

    Args:
        scores: JSON of every judged step, in order. models: the folders of their pipelines.
        metric: the one that says which is the best.
        history: the training's, for the validation loss of these steps, if it has one.
        table: CSV to write: step, and of each metric its score, with the bounds of its interval where it has one.
        best: folder to write.

    Raises:
        ValueError: steps were judged by unlike protocols, or a model is another than the judged one; names it.
    """
    judged = read_judged(scores)
    trained = [model for model in models if stopped_after(model) is None]
    for found in judged:
        if found.protocol != judged[0].protocol:
            raise ValueError(
                f"{scores[judged.index(found)]}: judged otherwise than {scores[0]}; remove both, and run"
                " `snakemake watch`"
            )
    chosen = best_of(judged, metric)
    model = trained[judged.index(chosen)]
    if sha256_path(model) != chosen.model:
        raise ValueError(f"{model}: is not the model that was judged; remove it, and run `snakemake watch`")
    with replacing(table) as beside:
        _table(judged, history).write_csv(beside)
    with replacing(best) as beside:
        others = shutil.ignore_patterns(SNAKEMAKES_MARK)
        shutil.copytree(model, beside, copy_function=link_or_copy, ignore=others)
    _LOG.info(
        "watch: step %d is the best of %d, %s %g",
        *(chosen.step, len(judged), METRICS[metric].label, chosen.scores[metric]),
    )
    not_reached = len(scores) - len(judged)
    return {
        "judged": len(judged),
        "best_step": chosen.step,
        "last_step": judged[-1].step,
        **({"not_reached": not_reached} if not_reached else {}),
    }


def _table(judged: Sequence[Judged], history: str | Path) -> pl.DataFrame:
    rows = pl.DataFrame([_row(found) for found in judged])
    steps = read_table(history)
    if "validation_loss" not in steps.columns:
        return rows
    losses = steps.select("step", "validation_loss")
    return rows.join(losses, on="step", how="left", maintain_order="left")


def _row(found: Judged) -> dict[str, Any]:
    row: dict[str, Any] = {"step": found.step}
    for name, value in found.scores.items():
        row[name] = value
        if name in found.bounds:
            row[f"{name}_low"], row[f"{name}_high"] = found.bounds[name]
    return row
