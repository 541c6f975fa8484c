"""Several datasets in one run: what is asked of each of them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from darkroom.settings.base import ADDED, Section


class DatasetShare(Section):
    """A run on several datasets: one of them."""

    name: str = Field(description="of a dataset in config/datasets")
    weight: Annotated[float | None, ADDED] = Field(
        None, gt=0, description="its part of the samples, against the other weights; all have one, or none"
    )
    repeats: Annotated[int, ADDED] = Field(
        1, ge=1, description="how often a pass over it shows each of its pictures"
    )


def check_shares(dataset: str | None, shares: Sequence[DatasetShare]) -> None:
    """Refuse what names no dataset, or contradicts itself.

    Raises:
        ValueError: names the key and what would be right.
    """
    if dataset is None and not shares:
        raise ValueError("dataset: is missing; write dataset: NAME, or datasets: with a list of several")
    if dataset is not None and shares:
        raise ValueError(
            "datasets: dataset is given too; leave it out (a run that extends another one writes `dataset: null`"
            " beside its list)"
        )
    names = [share.name for share in shares]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"datasets: names {twice[0]} twice; name it once, with repeats or a weight for how often it is shown"
        )
    if len(shares) == 1 and (shares[0].weight is not None or shares[0].repeats > 1):
        raise ValueError(
            f"datasets: {names[0]} is the only one, so weight and repeats change nothing; write"
            f" dataset: {names[0]}, or name another one beside it"
        )
    without = [share.name for share in shares if share.weight is None]
    if without and len(without) < len(shares):
        raise ValueError(
            f"datasets: {', '.join(without)} has no weight and others have; give every dataset one, or none: each"
            " then has as many samples as pictures times repeats"
        )
