"""The evaluate stage: brings the metrics together, and says how sure scores and differences are.

Both models draw from the same noise, so their difference is paired picture by picture and its interval is
taken over prompts.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.benchmarks.base import Record
from darkroom.config.run import Draw, Evaluate
from darkroom.draw.stage import MODELS, draw_protocol
from darkroom.evaluate.scores import difference, score
from darkroom.metrics.stage import read_protocol
from darkroom.metrics.table import METRICS, split_by_applicability
from darkroom.store import COMPUTED_IN, read_manifest, read_table, sha256_file, write_json, write_table
from darkroom.store.drawn import KEYS

_LOG = logging.getLogger(__name__)
_DIGITS = 6


@dataclass(frozen=True)
class EvaluateInputs:
    """What the stage reads.

    draw, settings: the run's sections. records: the prompts that were drawn.
    drawn_tables: the tables of all chunks of all models; drawn_manifest: the draw stage's.
    measured: the table and the protocol of each metric, as the measure stage wrote them.
    chosen: the metrics of the configuration, in order; those that say nothing of the prompts get a reason.
    models: model -> digest of its files.
    """

    draw: Draw
    settings: Evaluate
    records: Sequence[Record]
    drawn_tables: Sequence[str | Path]
    drawn_manifest: str | Path
    measured: Sequence[tuple[str | Path, str | Path]]
    chosen: Sequence[str]
    models: Mapping[str, str]


def evaluate(inputs: EvaluateInputs, metrics: str | Path, prompts: str | Path) -> dict[str, Any]:
    """Write metrics.json and prompts.parquet; return counts.

    Args:
        metrics: JSON file to write: scores with intervals, differences, and the protocol they hold for.
        prompts: Parquet file to write: one row for each model, prompt and picture.

    Raises:
        ValueError: a metric was measured on other pictures than these, or has not one value for each.
    """
    protocols, tables = _read_measured(inputs)
    _, silent = split_by_applicability(inputs.chosen, inputs.records)
    pictures = pl.concat([read_table(path) for path in inputs.drawn_tables])
    whole = join(pictures, tables)
    present = [name for name in MODELS if name in set(pictures["model"])]
    result = _scores(present, whole, tables, inputs)
    result["models"] = {name: inputs.models[name] for name in present}
    result["protocol"] = {
        **draw_protocol(inputs.draw, inputs.records),
        **_computed_in(inputs.drawn_manifest),
        **protocols,
        "intervals": "95 %, bootstrap over prompts within each task,"
        f" {inputs.settings.num_bootstrap} resamples",
    }
    if silent:
        result["not_measured"] = silent
        for reason in silent.values():
            _LOG.info("evaluate: %s", reason)
    write_table(prompts, whole, sort_by=None)
    write_json(metrics, rounded(result))
    return {
        "prompts": len(inputs.records),
        "pictures": {name: pictures.filter(pl.col("model") == name).height for name in present},
        "metrics": len(tables),
        "not_measured": len(silent),
    }


def _read_measured(inputs: EvaluateInputs) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """The protocol and the table of each metric, of these very pictures."""
    protocols, tables = {}, {}
    for table, protocol in inputs.measured:
        body = read_protocol(protocol)
        if body["pictures"] != sha256_file(inputs.drawn_manifest):
            raise ValueError(
                f"{protocol}: {body['metric']} was measured on other pictures than {inputs.drawn_manifest} has;"
                " scores of unequal pictures do not compare: remove it and run `snakemake measure`"
            )
        protocols[body["metric"]], tables[body["metric"]] = body["protocol"], read_table(table)
    return protocols, tables


def _scores(
    models: Sequence[str], whole: pl.DataFrame, tables: Mapping[str, pl.DataFrame], inputs: EvaluateInputs
) -> dict[str, Any]:
    """The scores of each model and, where there are two, the first one's minus the second one's."""
    num, seed = inputs.settings.num_bootstrap, inputs.draw.seed
    result: dict[str, Any] = {model: score(model, whole, tables, num, seed) for model in models}
    if len(models) > 1:
        result["difference"] = difference(models[0], models[1], whole, tables, num, seed)
    return result


def join(pictures: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """`pictures` with the columns of each metric that has a value for each of them.

    Raises:
        ValueError: a metric's rows are not the pictures.
    """
    for name, table in tables.items():
        if METRICS[name].summary == "distance":
            continue
        before = pictures.height
        pictures = pictures.join(
            table.with_columns(pl.lit(True).alias("_found")), on=list(KEYS), how="left", maintain_order="left"
        )
        if pictures.height != before or pictures["_found"].null_count() or table.height != before:
            raise ValueError(
                f"{name} has {table.height} values for {before} pictures; run `snakemake measure`"
            )
        pictures = pictures.drop("_found")
    return pictures


def _computed_in(drawn_manifest: str | Path) -> dict[str, str]:
    """The dtype of the pictures' drawing; `write_manifest` refuses chunks of several."""
    found = list(read_manifest(drawn_manifest)["counts"].get(COMPUTED_IN, {}))
    return {COMPUTED_IN: found[0]} if found else {}


def rounded(value: Any) -> Any:
    """Scores with the digits that are stored."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
