"""The score stage: the download's tables in, a file of columns for each scorer and part out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from darkroom import store
from darkroom.components.base import Component
from darkroom.differences import told
from darkroom.score.one_pass import read_in_one_pass
from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.shared import Shared
from darkroom.scorers.table import SCORERS

if TYPE_CHECKING:
    import numpy as np

Counts = dict[str, Any]

_KEYS = ("uid", "row", "status")


class Scored(NamedTuple):
    """What a file of scores says of itself, for its manifest.

    Attributes:
        counts: {scorer: {"rows": n, "unknown": {column: stored pictures without a value}, "not_finite": {column:
            n}}}; the last two only where there are any.
        judges: model -> its digest (`sha256`) and how it was asked; {} for a scorer that asks none.
    """

    counts: Counts
    judges: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a scorer is asked of a part.

    Attributes:
        scorer, options, components, references: as `score_part` takes them.
        out: the file for what it says.
        made_with: digest of what it scores with (`stages.scorer_digest`), for its manifest.
    """

    scorer: str
    options: Mapping[str, Any]
    out: Path
    made_with: str
    components: Mapping[str, Component] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        """Of `out`, beside it."""
        return self.out.with_suffix(".json")


def score_part(
    scorer: str,
    options: Mapping[str, Any],
    table: str | Path,
    tar: str | Path | None,
    out: str | Path,
    components: Mapping[str, Component] = MappingProxyType({}),
    references: Mapping[str, Path] = MappingProxyType({}),
) -> Scored:
    """Write uid, row and the scorer's columns of every row of a download table, sorted by uid.

    Args:
        scorer: a name of `SCORERS`, of one that scores parts.
        options: its section of the configuration.
        table: the part's download table.
        tar: its pictures, for a scorer that reads pixels.
        out: the file to write.
        components: name -> component, of those that the options name.
        references: name -> table of a set of pictures that the options name, see `references.write_references`.

    NaN and infinities are written as null, and counted.

    Raises:
        ValueError: the table lacks a column, or the scorer gives other columns or rows than it says.
    """
    spec = SCORERS[scorer]
    rows = store.read_table(table, _columns(spec))
    part = Part(rows, Path(tar) if tar is not None else None, components, references)
    return _scored_part(spec, options, part, out)


def score_in_one_pass(
    asked: "Sequence[Asked]", table: str | Path, tar: str | Path
) -> list[Scored | Exception]:
    """As `score_part` for each of several scorers of pixels, with one run through the pictures, each of which is
    decoded once, and what a model says of a batch, once for those that ask the same.

    Returns:
        For each what its file says, or the error that it ended with.
    """
    shared = Shared()

    def reader(of: Asked) -> "Callable[[Iterator[tuple[int, np.ndarray]]], Scored]":
        def read(pictures: "Iterator[tuple[int, np.ndarray]]") -> Scored:
            rows = store.read_table(table, _columns(SCORERS[of.scorer]))
            part = Part(rows, Path(tar), of.components, of.references, shared=shared, passes=[pictures])
            return _scored_part(SCORERS[of.scorer], of.options, part, of.out)

        return read

    whole = Part(store.read_table(table, [*_KEYS, "offset", "size"]), Path(tar))
    return read_in_one_pass(whole.images(), [reader(each) for each in asked])


def score_dataset(
    scorer: str,
    options: Mapping[str, Any],
    tables: Sequence[str | Path],
    out: str | Path,
    before: Sequence[str | Path] = (),
    scores: Sequence[str | Path] = (),
) -> Scored:
    """As `score_part`, for a scorer that looks at the whole dataset at once; one file, sorted by row.

    The rows of a round of retries have a file of their own, so that those of the rounds before it, whose tables
    are `before`, keep theirs. The scorer sees them all.

    Args:
        scores: what the scorers that it comes `after` say of each of these tables, by the names of the files.

    Raises:
        ValueError: `tables` is empty, such a file is missing or lacks rows, or as in `score_part`.
    """
    if not tables:
        raise ValueError("score: no tables; give the download table of every part")
    spec = SCORERS[scorer]
    files = {Path(path).name: path for path in scores}
    parts = [_rows_with_scores(spec, table, files) for table in (*before, *tables)]
    rows, num_new = pl.concat(parts), sum(part.height for part in parts[len(before) :])
    whole = Part(rows, lengths=tuple(part.height for part in parts))
    found = _scores(spec, options, whole)
    counts = _write(spec, rows.tail(num_new), found.tail(num_new), out, sort_by="row")
    return Scored(counts, _judges(whole))


def gather(
    path: str | Path,
    parts: Sequence[str | Path],
    made_with: Mapping[str, str],
    params: Mapping[str, Any],
    upstream: Mapping[str, str | Path],
) -> Counts:
    """Write the stage's manifest from those of its scorers' files, and return it.

    Args:
        path: the manifest.
        parts: the manifests `part-00000.SCORER.json` and `SCORER.json`, in the same folder.
        made_with: scorer -> digest of what it scores with now (`stages.scorer_digest`).
        params, upstream: as `store.write_manifest` takes them.

    Raises:
        ValueError: a file was made with other options or by another version, or what one scorer says was judged
            by unlike models; names its manifest.
    """
    files: list[str | Path] = list(parts)
    counts: Counts = {}
    judges: dict[str, Any] = {}
    first: dict[str, str | Path] = {}
    for part in parts:
        body, scorer = store.read_manifest(part), Path(part).stem.rpartition(".")[2]
        if body["settings"] != made_with[scorer]:
            raise ValueError(
                f"{part}: made with other options than {scorer} has now, or by another version; remove it and run"
                " `snakemake score`"
            )
        files += [Path(path).parent / name for name in body["files"]]
        store.add_counts(counts, body["counts"])
        judged_by = judges.setdefault(scorer, body.get(store.JUDGES, {}))
        if judged_by != body.get(store.JUDGES, {}):
            raise ValueError(
                f"{part}: {scorer} judged with another model, or asked it otherwise, than for"
                f" {first[scorer]} ({told(judged_by, body.get(store.JUDGES, {}))}); remove the one that is not to"
                " stay, and run `snakemake score`"
            )
        first.setdefault(scorer, part)
    return store.write_manifest(
        path, stage="score", params=params, upstream=upstream, files=files, counts=counts,
        judges={scorer: models for scorer, models in judges.items() if models},
    )  # fmt: skip


def _scored_part(spec: Scorer, options: Mapping[str, Any], part: Part, out: str | Path) -> Scored:
    counts = _write(spec, part.rows, _scores(spec, options, part), out, sort_by="uid")
    return Scored(counts, _judges(part))


def _judges(part: Part) -> dict[str, Any]:
    """What the scorer told of its models, with the digests of those that are components."""
    told_of = {name: part.judges.get(name, {}) for name in (*part.components, *part.judges)}
    digests = {}
    if part.components:
        # It reads safetensors, and imports torch for it.
        from darkroom.components.files import fingerprint

        digests = {name: {"sha256": fingerprint(component)} for name, component in part.components.items()}
    return {name: {**digests.get(name, {}), **said} for name, said in told_of.items()}


def _columns(spec: Scorer) -> list[str]:
    pictures = ("offset", "size") if spec.reads == "pixels" else ()
    return list(dict.fromkeys((*_KEYS, *spec.needs, *pictures)))


def _rows_with_scores(spec: Scorer, table: str | Path, files: Mapping[str, str | Path]) -> pl.DataFrame:
    """A part's rows with the columns of the scorers that this one comes after."""
    rows = store.read_table(table, _columns(spec))
    for scorer in spec.after:
        name = f"{Path(table).stem}.{scorer}.parquet"
        if name not in files:
            raise ValueError(f"the scorer {spec.name} comes after {scorer}; give {name} too")
        scores = store.read_table(files[name], ["row", *SCORERS[scorer].columns])
        if missing := rows.join(scores, on="row", how="anti").height:
            raise ValueError(
                f"{files[name]}: lacks {missing} rows of {table}; remove it and run `snakemake score`"
            )
        rows = rows.join(scores, on="row", how="left", maintain_order="left")
    return rows


def _scores(spec: Scorer, options: Mapping[str, Any], part: Part) -> pl.DataFrame:
    scores = spec.score(spec.section.model_validate(options), part)
    wanted = pl.Schema({column: getattr(pl, kind) for column, kind in spec.columns.items()})
    if scores.schema != wanted or scores.height != part.rows.height:
        raise ValueError(
            f"the scorer {spec.name} gives {scores.height} rows of {dict(scores.schema)}; it should give"
            f" {part.rows.height} of {dict(wanted)}"
        )
    return scores


def _write(spec: Scorer, rows: pl.DataFrame, scores: pl.DataFrame, out: str | Path, sort_by: str) -> Counts:
    finite, not_finite = store.finite(scores)
    store.write_table(out, pl.concat([rows.select("uid", "row"), finite], how="horizontal"), sort_by=sort_by)
    stored = finite.filter(rows["status"] == "ok")
    unknown = {name: n for name in spec.columns if (n := stored[name].null_count())}
    more = {"unknown": unknown, "not_finite": not_finite}
    return {spec.name: {"rows": rows.height, **{name: counts for name, counts in more.items() if counts}}}
