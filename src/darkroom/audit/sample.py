"""A sample stratified over a score's range, with its inclusion weights, and the file that keeps it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from darkroom.store import read_table, replacing, write_json, write_table

NUM_STRATA = 10
_NUM_BINS = 200  # of the histogram that strata are cut from
_CLIPPED = 0.001  # share of the scores at either end that does not stretch the bins
TABLE, FACTS = "sample.parquet", "audit.json"
COLUMNS = ("uid", "row", "part", "offset", "size", "stratum", "score", "weight", "above")


@dataclass(frozen=True)
class Stratum:
    """Pictures whose scores lie in [low, high]: how many there are, and how many of them were drawn."""

    low: float
    high: float
    pictures: int
    sampled: int


@dataclass(frozen=True)
class Audit:
    """A sample to label.

    Attributes:
        dataset, column, scorer, seed: what was drawn; no scorer: a column of the list.
        pictures: stored pictures with a score; `unknown` are those without.
        strata: from the lowest scores to the highest.
        rows: in the order in which they are shown, which is random: uid, row, part, offset, size, stratum, score,
            weight (pictures that it stands for: the stratum's / those drawn) and above (pictures of its stratum
            whose score is at least its own).
    """

    dataset: str
    column: str
    scorer: str
    seed: int
    pictures: int
    unknown: int
    strata: tuple[Stratum, ...]
    rows: pl.DataFrame

    def write(self, folder: Path) -> None:
        """Write it into a folder: the rows as Parquet, the rest as JSON."""
        write_table(folder / TABLE, self.rows, sort_by=None)
        facts = {**asdict(self), "strata": [asdict(stratum) for stratum in self.strata]}
        write_json(folder / FACTS, {name: value for name, value in facts.items() if name != "rows"})

    def write_csv(self, path: Path) -> None:
        """Write what the page's button saves too, without labels yet."""
        with replacing(path) as beside:
            self.rows.select("uid", "score", "weight", label=pl.lit("")).write_csv(beside)


def read_audit(folder: Path) -> Audit:
    """The audit that was written into a folder.

    Raises:
        ValueError: there is none.
    """
    if not (folder / FACTS).exists() or not (folder / TABLE).exists():
        raise ValueError(f"{folder}: no audit lies here; draw its sample first, without --labels")
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    strata = tuple(Stratum(**stratum) for stratum in facts.pop("strata"))
    return Audit(**facts, strata=strata, rows=read_table(folder / TABLE, COLUMNS))


def draw(
    pictures: pl.DataFrame, column: str, number: int, seed: int, dataset: str = "", scorer: str = ""
) -> Audit:
    """Draw a sample of `number` pictures, or all where there are fewer.

    Strata are cut by `edges`, and as many pictures are drawn from each as from any other, as far as it has them.
    Within a stratum those with the lowest random numbers are drawn, and a picture's number depends on its uid and
    the seed alone (permanent random numbers: Ohlsson, "Coordination of samples using permanent random numbers",
    in Business Survey Methods, 1995). So a larger sample of the same scores holds the smaller one with its labels.

    Args:
        pictures: uid, row, part, offset, size and `column`, one row a picture.
        column: numbers, or booleans, which are 0 and 1.

    Raises:
        ValueError: no picture has a score.
    """
    known = pictures.filter(pl.col(column).is_not_null()).with_columns(score=pl.col(column).cast(pl.Float64))
    known = known.filter(pl.col("score").is_finite())
    if known.is_empty():
        raise ValueError(f"{column}: none of {pictures.height:,} stored pictures has a value")
    scores = known["score"].to_numpy()
    place = np.searchsorted(edges(scores), scores, side="right")
    # Strata that hold nothing have no number.
    stratum = np.unique(place, return_inverse=True)[1]
    sizes = np.bincount(stratum)
    taken = allocate(sizes.tolist(), number)
    ranked = known.with_columns(
        stratum=pl.Series(stratum, dtype=pl.Int32), order=pl.Series(random_order(known["uid"], seed))
    ).with_columns(above=pl.col("score").rank("max", descending=True).over("stratum").cast(pl.Int64))
    place_in = pl.col("order").rank("ordinal").over("stratum")
    drawn = ranked.filter(place_in <= pl.lit(pl.Series(taken)).gather(pl.col("stratum"))).sort("order", "uid")
    weights = sizes / np.maximum(taken, 1)
    rows = drawn.with_columns(weight=pl.Series(weights[drawn["stratum"].to_numpy()])).select(COLUMNS)
    bounds = ranked.group_by("stratum").agg(low=pl.col("score").min(), high=pl.col("score").max())
    strata = tuple(
        Stratum(low, high, int(sizes[index]), taken[index])
        for index, low, high in bounds.sort("stratum").iter_rows()
    )
    unknown = pictures.height - known.height
    return Audit(dataset, column, scorer, seed, known.height, unknown, strata, rows)


def edges(scores: np.ndarray, number: int = NUM_STRATA) -> np.ndarray:
    """Where the strata after the first begin, ascending; at most `number` - 1 of them.

    Equal steps of the cumulated square root of the frequency (Dalenius and Hodges, "Minimum variance
    stratification", JASA 54, 1959). They lie between strata of one width, of which the lowest would hold nearly
    all pictures of a scorer that finds little, and strata of one number of pictures, which would hardly reach its
    high scores.
    """
    low, high = np.quantile(scores, [_CLIPPED, 1 - _CLIPPED])
    if low == high:
        low, high = scores.min(), scores.max()
    if low == high:
        return np.array([])
    counts, begins = np.histogram(np.clip(scores, low, high), _NUM_BINS, (low, high))
    cumulated = np.cumsum(np.sqrt(counts))
    steps = cumulated[-1] * np.arange(1, number) / number
    found: np.ndarray = np.unique(begins[1:][np.searchsorted(cumulated, steps)])
    return found


def allocate(sizes: list[int], number: int) -> list[int]:
    """How many of `number` are drawn from strata of these sizes: alike from each, and no more than it has."""
    taken, left = [0] * len(sizes), number
    for done, index in enumerate(sorted(range(len(sizes)), key=lambda index: sizes[index])):
        taken[index] = min(sizes[index], left // (len(sizes) - done))
        left -= taken[index]
    return taken


def random_order(uids: pl.Series, seed: int) -> np.ndarray:
    """A uint64 a uid that depends on it and the seed alone.

    Uids are digests; their last 64 bits are mixed with the seed by the finalizer of SplitMix64 (Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    bits = uids.str.tail(16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
    with np.errstate(over="ignore"):
        z = bits + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
