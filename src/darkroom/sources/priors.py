"""Which samples are pictures of a subject's class, whatever kind of source lists them."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from darkroom.sources.base import CLASS_URLS
from darkroom.store import read_table


def prior_uids(tables: Sequence[str | Path]) -> list[str]:
    """The uids of a dataset's class pictures, sorted, from its download tables; see `Source`."""
    is_class = pl.col("url").str.starts_with(CLASS_URLS) & (pl.col("status") == "ok")
    found = [read_table(path, ["uid", "url", "status"]).filter(is_class)["uid"] for path in tables]
    return sorted(pl.concat(found).to_list())
