"""Withdrawing URLs from datasets: what is recorded, and what has to be made again."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from darkroom.publish import published_runs
from darkroom.sources.withdrawn import digest_of, read_withdrawn, write_withdrawn
from darkroom.store.found import shown
from darkroom.trace.made import CHECKPOINTS, Uses, uses
from darkroom.trace.rows import DATASETS, Found, find_digest, find_urls, tables

_NUM_NAMED = 10


@dataclass(frozen=True)
class Withdrawn:
    """What was withdrawn from a dataset.

    Attributes:
        path: where that is recorded.
        num_new: URLs that were not withdrawn before.
        num_known: those that were.
        parts: the parts that hold them.
    """

    path: Path
    num_new: int
    num_known: int
    parts: list[str]


def urls_of(uids: Collection[str], root: Path = Path()) -> list[str]:
    """The URLs of samples by their uids.

    Raises:
        ValueError: one is in no table, or is of a row without a URL; names it.
    """
    found: dict[str, str] = {}
    for _, path in tables(root):
        rows = pl.scan_parquet(path).filter(pl.col("uid").is_in(list(uids))).select("uid", "url").collect()
        found |= {uid: url for uid, url in rows.iter_rows() if url}
    absent = [uid for uid in uids if uid not in found]
    if absent:
        raise ValueError(f"--uid {absent[0]}: no row of {DATASETS} has this uid and a URL")
    return [found[uid] for uid in uids]


def withdraw(urls: Sequence[str], dataset: str = "", root: Path = Path()) -> dict[str, Withdrawn]:
    """Record that URLs are withdrawn from the datasets that list them, or from `dataset`; returns what by dataset.

    Raises:
        ValueError: no dataset here lists one of them, or a dataset's record is wrong; nothing is recorded then.
    """
    told = {digest_of(url): url for url in urls}
    found = find_urls(told, root)
    where: dict[str, set[str]] = {dataset: set(told)} if dataset else _listing(told, root)
    for one in found:
        if not dataset or one.dataset == dataset:
            where.setdefault(one.dataset, set()).add(digest_of(one.row["url"]))
    known = {name: read_withdrawn(name, root / "config") for name in where}
    # One that is given again may be gone from every list since.
    recorded = {
        path.stem: read_withdrawn(path.stem, root / "config")
        for path in sorted((root / "config/withdrawn").glob("*.txt"))
    }
    nowhere = [
        url
        for digest, url in told.items()
        if not any(digest in digests for digests in (*where.values(), *recorded.values()))
    ]
    if nowhere:
        raise ValueError(
            f"{shown(nowhere[0])}: no list in {DATASETS} has this URL; `--dataset NAME` records it all the same,"
            " for a list that is still to be read"
        )
    for name, before in recorded.items():
        if not dataset and before & set(told):
            where.setdefault(name, set()).update(before & set(told))
            known[name] = before
    made = {}
    for name, digests in sorted(where.items()):
        path = write_withdrawn(name, known[name] | digests, root / "config")
        num_new = len(digests - known[name])
        parts = sorted({one.part for one in found if one.dataset == name})
        made[name] = Withdrawn(path, num_new, len(digests) - num_new, parts)
    return made


def what_follows(urls: Sequence[str], made: Mapping[str, Withdrawn], root: Path = Path()) -> Iterator[str]:
    """What has to be made again, with which commands, and what else holds the pictures; a line each."""
    found = find_urls({digest_of(url) for url in urls}, root)
    found = [one for one in found if one.dataset in made]
    for name, one in made.items():
        known = f", {one.num_known} before" if one.num_known else ""
        yield f"{name}: {one.num_new} withdrawn now{known} ({one.path})"
        if one.parts:
            yield f"  to be made again: {', '.join(one.parts)}, and what follows from them"
        elif (root / DATASETS / name / "download").exists():
            yield "  no part that was downloaded holds them"
    users = _users(found, root)
    for run in [*users.trained, *users.unknown]:
        seen = "was" if run in users.trained else "may have been"
        yield f"run {run} {seen} trained on them: {_commands(run)}"
        if (root / CHECKPOINTS / run).exists():
            yield f"  then remove its old checkpoints: rm -r {CHECKPOINTS / run}"
        if run in published_runs(root):
            yield f"  and publish it again: darkroom publish {run}; dvc gc --workspace"
    for run in sorted(set(users.measured) - set(users.trained) - set(users.unknown)):
        yield f"run {run} was compared with them: {_commands(run)}"
    yield from _copies(found, made, root)


def _commands(run: str) -> str:
    """In two, because a plan does not know yet that other parts' selections will be the same."""
    return f"snakemake filter --config run={run}; snakemake --config run={run}"


def _users(found: Sequence[Found], root: Path) -> Uses:
    together = Uses()
    for one in found:
        made = uses(one, root)
        together.trained |= made.trained
        together.measured |= made.measured
        together.unknown += [run for run in made.unknown if run not in together.unknown]
    return together


def _copies(found: Sequence[Found], made: Mapping[str, Withdrawn], root: Path) -> Iterator[str]:
    """Rows with the same bytes under other URLs: withdrawing one URL leaves them."""
    digests = {one.row["sha256"] for one in found if one.row["status"] == "ok"}
    gone = {name: read_withdrawn(name, root / "config") for name in {dataset for dataset, _ in tables(root)}}
    others = [one for one in find_digest(digests, root) if digest_of(one.row["url"]) not in gone[one.dataset]]
    if others:
        yield f"the same bytes are here under {len(others)} other URLs, which are not withdrawn:"
        yield from (f"  {one.dataset}: {shown(one.row['url'])}" for one in others[:_NUM_NAMED])


def _listing(digests: Collection[str], root: Path) -> dict[str, set[str]]:
    """Dataset -> which of these it lists, of datasets whose list was read."""
    found: dict[str, set[str]] = {}
    for path in sorted((root / DATASETS).glob("*/urls.parquet")):
        urls = pl.read_parquet(path, columns=["url"])["url"]
        listed = {digest for url in urls if url and (digest := digest_of(url)) in digests}
        if listed:
            found[path.parent.name] = listed
    return found
