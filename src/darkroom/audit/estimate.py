"""Precision and recall of a score at every threshold, estimated from a labelled stratified sample.

A picture is found by a threshold t where its score is at least t. Precision is the share of found pictures that
are what the score is about; recall is the share of such pictures that are found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from darkroom.audit.sample import Audit

_PRIOR = 0.5  # Jeffreys: Beta(1/2, 1/2)
NUM_DRAWS = 2000


@dataclass(frozen=True)
class Rate:
    """An estimate with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold finds.

    Attributes:
        threshold: pictures with this score and with higher ones are found.
        pictures: how many of the dataset's are.
        labelled: how many labelled ones are among them.
        precision, recall: recall is None where no label is yes.
    """

    threshold: float
    pictures: int
    labelled: int
    precision: Rate
    recall: Rate | None


class Estimator:
    """A labelled sample, sorted by score, and the groups of strata that it speaks for.

    Pictures without an answer are taken as missing at random within their stratum. Strata with fewer than two
    labels, unless that is all they hold, are counted as one with the next higher.
    """

    def __init__(self, audit: Audit, labels: Mapping[str, bool]) -> None:
        rows = audit.rows.filter(pl.col("uid").is_in(list(labels))).sort("score", "uid")
        self.scores = rows["score"].to_numpy()
        self.is_yes = np.array([labels[uid] for uid in rows["uid"]], dtype=bool)
        stratum = rows["stratum"].to_numpy()
        populations = np.array([each.pictures for each in audit.strata])
        group_of = _groups(populations, np.bincount(stratum, minlength=len(populations)))
        self.group = group_of[stratum]
        self.populations = np.bincount(group_of, weights=populations).astype(np.int64)
        self.weights = (self.populations / np.bincount(self.group))[self.group]
        # Pictures of the group with at least the row's score: those of its stratum and all of higher strata.
        higher = [
            populations[s + 1 :][group_of[s + 1 :] == group_of[s]].sum() for s in range(len(populations))
        ]
        self.above = rows["above"].to_numpy() + np.array(higher, dtype=np.int64)[stratum]

    def thresholds(self) -> np.ndarray:
        """The distinct scores of labelled pictures, ascending."""
        return np.unique(self.scores)

    def estimates(self, level: float = 0.95, num_draws: int = NUM_DRAWS) -> Iterator[AtThreshold]:
        """`at` for every threshold, ascending."""
        for threshold in self.thresholds():
            yield self.at(float(threshold), level, num_draws)

    def at(self, threshold: float, level: float = 0.95, num_draws: int = NUM_DRAWS) -> AtThreshold:
        """Precision and recall at a threshold, which is one of `thresholds`.

        With w_i = N_g / n_g (pictures of the group / labelled), y_i = 1 for yes and f_i = 1 for score_i >= t::

            precision = sum w_i y_i f_i / sum w_i f_i        recall = sum w_i y_i f_i / sum w_i y_i

        the ratio estimators of Hajek (1971) and of scikit-learn's `precision_recall_curve` with `sample_weight` w.

        The interval holds `level` of the posterior, half of the rest on either side. It is that of Webber,
        "Approximate recall confidence intervals", ACM TOIS 31(1), 2013: how many of the pictures that are not
        labelled are yes is beta-binomial, with found and not found pictures apart, and the rates follow by Monte
        Carlo. Each group gives a cell to either side of the threshold, with N_c pictures, n_c labelled, y_c yes::

            p_c ~ Beta(y_c + a_c, n_c - y_c + a_c)        Y_c ~ y_c + Binomial(N_c - n_c, p_c)
            precision = sum_found Y_c / sum_found N_c     recall = sum_found Y_c / sum_all Y_c

        Webber's sides are one cell, with a = 1/2 of Jeffreys; here the cells of a side share it by their pictures,
        a_c = N_c / (2 sum_side N_c): many cells without a yes are not to weigh more than one. Where all of a side
        is labelled nothing of it is random. As Brown, Cai and DasGupta do where all or none are yes ("Interval
        estimation for a binomial proportion", Statistical Science 16, 2001), the interval is widened to hold the
        estimate.
        """
        is_found = self.scores >= threshold
        found_weight = (self.weights * is_found).sum()
        yes_weight = (self.weights * self.is_yes).sum()
        hit_weight = (self.weights * self.is_yes * is_found).sum()
        found, missed = self._cells(is_found)
        rng = np.random.default_rng(0)
        hits, misses = _draw_yes(found, rng, num_draws), _draw_yes(missed, rng, num_draws)
        pictures = int(found[0].sum())
        tails = [(1 - level) / 2, (1 + level) / 2]
        recall = None
        if yes_weight > 0:
            total = hits + misses
            recall = _rate(hit_weight / yes_weight, hits[total > 0] / total[total > 0], tails)
        precision = _rate(hit_weight / found_weight, hits / pictures, tails)
        return AtThreshold(threshold, pictures, int(is_found.sum()), precision, recall)

    def _cells(self, is_found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of both sides of a threshold: pictures, labelled and yes of each cell, as (3, cells)."""
        place = int(np.argmax(is_found))  # scores ascend
        cut, number = self.group[place], len(self.populations)
        above = np.where(np.arange(number) > cut, self.populations, 0)
        above[cut] = self.above[place]
        sides = []
        for pictures, chosen in ((above, is_found), (self.populations - above, ~is_found)):
            labelled = np.bincount(self.group[chosen], minlength=number)
            yes = np.bincount(self.group[chosen & self.is_yes], minlength=number)
            sides.append(_without_gaps(np.stack([pictures, labelled, yes])))
        return sides[0], sides[1]


def threshold_for(
    estimates: list[AtThreshold], precision: float
) -> tuple[AtThreshold | None, AtThreshold | None]:
    """The lowest thresholds, which find the most, whose precision is at least `precision`: by the estimate, and by
    the interval's lower end; None where there is none."""
    by_value = (each for each in estimates if each.precision.value >= precision)
    by_low = (each for each in estimates if each.precision.low >= precision)
    return next(by_value, None), next(by_low, None)


def _groups(populations: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Stratum -> number of its group; a group has two labels, or is labelled whole."""
    groups, number, in_group, pictures = [], 0, 0, 0
    for size, count in zip(populations, labelled, strict=True):
        groups.append(number)
        in_group, pictures = in_group + count, pictures + size
        if in_group >= 2 or in_group == pictures:
            number, in_group, pictures = number + 1, 0, 0
    last = max(number - 1, 0)
    return np.minimum(np.array(groups), last)


def _without_gaps(cells: np.ndarray) -> np.ndarray:
    """Cells that hold pictures; one without a label is counted into the next that has one, if any has."""
    cells = cells[:, cells[0] > 0]
    for index in np.flatnonzero(cells[1] == 0):
        labelled = np.flatnonzero(cells[1])
        if len(labelled):
            cells[0, labelled[np.argmin(np.abs(labelled - index))]] += cells[0, index]
            cells[0, index] = 0
    return cells[:, cells[0] > 0]


def _draw_yes(cells: np.ndarray, rng: np.random.Generator, num_draws: int) -> np.ndarray:
    """Draws of the number of yes among all pictures of a side: (num_draws,), see `Estimator.at`."""
    pictures, labelled, yes = cells
    if not pictures.size:
        return np.zeros(num_draws, np.int64)
    prior = np.maximum(_PRIOR * pictures / pictures.sum(), 1e-6)
    share = rng.beta(yes + prior, labelled - yes + prior, size=(num_draws, len(pictures)))
    drawn: np.ndarray = (yes + rng.binomial(pictures - labelled, np.nan_to_num(share))).sum(axis=1)
    return drawn


def _rate(value: float, draws: np.ndarray, tails: list[float]) -> Rate:
    low, high = np.quantile(draws, tails) if draws.size else (0.0, 1.0)
    return Rate(float(value), float(min(low, value)), float(max(high, value)))
