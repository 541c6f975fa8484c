"""Measures a folder of pictures by several metrics; pictures are encoded once for all that see them alike."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl

from darkroom.measuring.chosen import Chosen
from darkroom.measuring.folder import MODEL, Folder, look_through
from darkroom.measuring.prompts import Prompts, read_prompts
from darkroom.measuring.statistics import read_statistics
from darkroom.metrics import VERSION
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.extracted import REAL, Asked, Features
from darkroom.metrics.references import Statistics
from darkroom.metrics.table import METRICS
from darkroom.store import replacing, sha256_json, write_json
from darkroom.store.drawn import KEYS

_DIGITS = 6


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        body: `scores` (metric -> number, or column -> number), `protocol` (metric -> what its number depends on),
            and `pictures`, `reference` and `prompts`, where given: numbers, digests, and what was left out;
            `not_measured` (metric -> why), where one could not be.
        table: a row for each picture: `file`, `prompt` and its scores, null where it has none.
    """

    body: dict[str, Any]
    table: pl.DataFrame

    def write(self, folder: Path) -> None:
        """Write `metrics.json` and `pictures.csv` into a new folder.

        Raises:
            ValueError: it is there already.
        """
        if folder.exists():
            raise ValueError(f"{folder} is there already; name another folder, or remove it")
        with replacing(folder) as beside:
            beside.mkdir()
            write_json(beside / "metrics.json", self.body)
            self.table.write_csv(beside / "pictures.csv")


def measure_folder(
    folder: str | Path,
    chosen: Chosen,
    reference: str | Path | None,
    prompts: str | Path | None,
    keep: Path | None = None,
) -> Result:
    """Measure the pictures of a folder.

    Args:
        chosen: the metrics.
        reference: a folder of real pictures, or a file of statistics, see `read_statistics`.
        prompts: a table, see `read_prompts`.
        keep: a folder that features of pictures are kept in: those that are there are not computed again.

    Raises:
        ValueError: a metric lacks what it compares with, a file is not what it should be, or no metric could be
            measured.
    """
    _refuse_what_lacks(chosen, reference, prompts)
    statistics = read_statistics(reference) if reference and not Path(reference).is_dir() else None
    pictures = look_through(folder)
    told = read_prompts(prompts, pictures.root, pictures.names) if prompts else None
    real = look_through(reference) if reference and statistics is None else None
    measured, failed = _measure(chosen, pictures, statistics or real, told, keep)
    scores = {name: _scored(METRICS[name], found.table) for name, found in measured.items()}
    body = {
        "scores": scores,
        "protocol": {name: dict(found.protocol) for name, found in measured.items()},
        "pictures": _told(pictures),
        **({"reference": _told(real)} if real else {}),
        **({"reference": {"statistics_sha256": statistics.sha256}} if statistics else {}),
        **({"prompts": _told_prompts(told, pictures)} if told else {}),
        **({"not_measured": failed} if failed else {}),
    }
    return Result(body, _by_picture(pictures, told, measured))


def _scored(metric: Metric, table: pl.DataFrame) -> float | dict[str, float]:
    """A metric's number, or its parts' by column: means over the pictures that have one."""
    means = {
        column: table[column].cast(pl.Float64).mean()
        for column in metric.scored(table.columns) or (metric.column,)
    }
    rounded = {column: round(float(cast(float, mean)), _DIGITS) for column, mean in means.items()}
    return rounded if metric.parts else rounded[metric.column]


def _by_picture(pictures: Folder, prompts: Prompts | None, measured: dict[str, Measured]) -> pl.DataFrame:
    """See `Result.table`."""
    table = pictures.table().select("file")
    if prompts is not None:
        told = [prompts.of.get(name) for name in pictures.names]
        table = table.with_columns(prompt=pl.Series(told, dtype=pl.String))
    for name, found in measured.items():
        if METRICS[name].summary == "distance":
            continue
        files = list(prompts.of) if prompts is not None and METRICS[name].reads_prompts else pictures.names
        values = found.table.drop(KEYS).with_columns(file=pl.Series(files, dtype=pl.String))
        table = table.join(values, on="file", how="left", maintain_order="left")
    return table


def _refuse_what_lacks(chosen: Chosen, reference: Any, prompts: Any) -> None:
    """Before any picture is read."""
    if reference and not Path(reference).exists():
        raise ValueError(f"{reference}: is neither a folder of real pictures nor a file of their statistics")
    if prompts and not Path(prompts).is_file():
        raise ValueError(f"{prompts}: is no file; it should be a table with file and prompt")
    for name in chosen.sections:
        metric = METRICS[name]
        if metric.references and not reference:
            raise ValueError(f"{name} compares with real pictures: give --reference FOLDER")
        if metric.reads_prompts and not prompts:
            raise ValueError(f"{name} compares with prompts: give --prompts TABLE, with file and prompt")
        if metric.references and not metric.statistics and not Path(reference).is_dir():
            raise ValueError(f"{name} takes no statistics for real pictures: give --reference FOLDER")


def _measure(
    chosen: Chosen,
    pictures: Folder,
    real: Folder | Statistics | None,
    prompts: Prompts | None,
    keep: Path | None,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Metric -> what it found, or why it could not; pictures without a prompt are compared with real ones only."""
    with_prompts = pictures.only(list(prompts.of)) if prompts else pictures
    records = [{"prompt": text, "tag": "prompts"} for text in prompts.of.values()] if prompts else []
    all_features = Features(_kept(keep, chosen, pictures, real))
    shared = with_prompts.names == pictures.names
    features_of_some = all_features if shared else Features(_kept(keep, chosen, with_prompts, real))
    found, failed = {}, {}
    for name, section in chosen.sections.items():
        metric = METRICS[name]
        if isinstance(real, Folder) and metric.references:
            section = section.model_copy(update={"num_reference_pictures": max(2, len(real.names))})
        seen = with_prompts if metric.reads_prompts else pictures
        features = features_of_some if metric.reads_prompts else all_features
        inputs = Inputs({MODEL: seen}, records, chosen.components, real, features)
        if metric.reads_prompts and (why := metric.silent_on(records)):
            failed[name] = why
            continue
        try:
            found[name] = metric.measure(section, inputs)
        except ValueError as error:
            # What others found, which may have taken hours, is not lost with it.
            failed[name] = str(error)
    if not found:
        raise ValueError("; ".join(dict.fromkeys(failed.values())))
    return found, failed


def _kept(
    keep: Path | None, chosen: Chosen, pictures: Folder, real: Folder | Statistics | None
) -> Callable[[Asked], Path | None]:
    """Where features are kept, by the digests of the pictures and of all that makes them."""
    sets = {MODEL: pictures, REAL: real}

    def place(asked: Asked) -> Path | None:
        seen = sets[asked.of]
        if keep is None or not isinstance(seen, Folder):
            return None
        from darkroom.components.files import fingerprint

        extractor = asked.extractor
        files = fingerprint(chosen.components[extractor.component])
        made_by = sha256_json([asdict(extractor), files, VERSION])
        return keep / f"{seen.sha256[:16]}-{made_by[:16]}.safetensors"

    return place


def _told(folder: Folder) -> dict[str, Any]:
    return {
        "number": len(folder.names),
        "sha256": folder.sha256,
        "unreadable": dict(folder.unreadable),
        "other_files": folder.num_others,
    }


def _told_prompts(prompts: Prompts, pictures: Folder) -> dict[str, int]:
    return {
        "number": len(prompts.of),
        "pictures_without_prompt": len(pictures.names) - len(prompts.of),
        "rows_without_picture": prompts.num_rows_without_picture,
    }
