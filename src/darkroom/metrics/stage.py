"""The measure stage: one metric at a time on the pictures that are drawn."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.metrics.base import Inputs
from darkroom.metrics.table import METRICS
from darkroom.settings.base import Section
from darkroom.store import read_manifest, sha256_file, write_json, write_manifest, write_table

_LOG = logging.getLogger(__name__)


def measure_metric(
    name: str,
    section: Section,
    inputs: Inputs,
    drawn_manifest: str | Path,
    table: str | Path,
    protocol: str | Path,
) -> dict[str, int]:
    """Measure; write the metric's table and its protocol; return counts.

    Args:
        name: one of METRICS.
        section: its options.
        inputs: what it looks at.
        drawn_manifest: the draw stage's manifest; its digest says later which pictures were measured.
        table: Parquet file to write, see `Measured.table`.
        protocol: JSON file to write: `metric`, `pictures` (that digest) and `protocol`.

    Raises:
        ValueError: pictures or references are not what they should be.
        RuntimeError: the metric's instrument does not work.
    """
    measured = METRICS[name].measure(section, inputs)
    write_table(table, measured.table, sort_by=None)
    body = {"metric": name, "pictures": sha256_file(drawn_manifest), "protocol": dict(measured.protocol)}
    write_json(protocol, body)
    _LOG.info("measure: %s, %s", name, measured.protocol.get("definition", ""))
    return dict(measured.counts)


def read_protocol(path: str | Path) -> dict[str, Any]:
    """What `measure_metric` wrote."""
    body: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return body


def gather(
    path: str | Path,
    parts: Mapping[str, str | Path],
    made_with: Mapping[str, str],
    params: Mapping[str, Any],
    upstream: Mapping[str, str | Path],
) -> dict[str, Any]:
    """Write the stage's manifest from those of its metrics and return it.

    Args:
        path: the manifest.
        parts: metric -> its manifest, in the same folder.
        made_with: metric -> digest of what it is measured with now (`stages.metric_digest`).
        params, upstream: as `write_manifest` takes them.

    Raises:
        ValueError: a metric was measured with other options; names its manifest.
    """
    bodies = {name: read_manifest(part) for name, part in parts.items()}
    for name, body in bodies.items():
        if body["settings"] != made_with[name]:
            raise ValueError(
                f"{parts[name]}: measured with other options than {name} has now; remove it and run"
                " `snakemake measure`"
            )
    files = [Path(path).parent / file for body in bodies.values() for file in body["files"]]
    counts: dict[str, Any] = {"metrics": len(bodies)}
    for body in bodies.values():
        counts |= body["counts"]
    return write_manifest(
        path,
        stage="measure",
        params=params,
        upstream=upstream,
        files=[*files, *parts.values()],
        counts=counts,
    )
