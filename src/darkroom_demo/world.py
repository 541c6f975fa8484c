"""The demo world: a fixed list of URLs, the truth about each, and the pictures behind them.

Everything follows from the source's numbers and seed. A row is drawn from its own seed when it is
asked for, so a server renders only what is fetched, and two processes agree on every byte.
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom_demo.alttexts import alt_text
from darkroom_demo.files import PICTURELESS, file_bytes
from darkroom_demo.layout import Row, lay_out, seed_of
from darkroom_demo.section import DemoSource
from darkroom_demo.subjects import CHANGED, Subject, digits_subject, photo_subject, scene_subject

if TYPE_CHECKING:
    import polars as pl

_SHARE_NULL = 0.02
_SHARE_WRONG_SIZE = 0.05


class DemoWorld:
    """The world of a source. `rows` is its list; the methods take a row's number."""

    def __init__(self, source: DemoSource) -> None:
        self.source = source
        self.rows = lay_out(source)
        self._latest: tuple[int, Subject] | None = None
        self._by_path = {r.path: r.row for r in self.rows if r.path and r.fault != "same_url"}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each kind (scene, digit, photo) and of each fault."""
        return dict(sorted(Counter(row.fault or row.kind for row in self.rows).items()))

    def find(self, path: str) -> int | None:
        """The row whose URL has this path (with its query) on the nominal host, or None."""
        return self._by_path.get(path)

    def subject(self, row: int) -> Subject:
        """What the upright picture of a row shows; for a picture that is missing, what it might have."""
        latest = self._latest
        if latest is None or latest[0] != row:
            self._latest = latest = row, self._draw_subject(self.rows[row])
        return latest[1]

    def picture_bytes(self, row: int) -> bytes:
        """The file behind a row's URL; empty where there is none."""
        entry = self.rows[row]
        if entry.fault in ("exact_duplicate", "same_url") and entry.original is not None:
            return self.picture_bytes(entry.original)
        return file_bytes(entry, self.subject(row))

    def list_record(self, row: int) -> dict[str, Any]:
        """The row of `urls.parquet`."""
        entry, subject = self.rows[row], self.subject(row)
        rng = np.random.default_rng(seed_of(self.source, "list", entry.fault or entry.kind, entry.index))
        caption, good = alt_text(rng, subject.long, subject.short, subject.nouns, subject.scene)
        record: dict[str, Any] = {"row": row, "url": entry.url, "caption": caption}
        record["similarity"] = _rounded(rng.normal(0.34 if good else 0.26, 0.03))
        record["pwatermark"] = _rounded(min(rng.beta(1.2, 14), 0.45))
        record["punsafe"] = _rounded(min(rng.beta(0.5, 40), 0.45))
        record["width"], record["height"] = subject.width, subject.height
        if entry.fault == "exif_orientation" and entry.index % 8 >= 4:
            # Whoever made the list decoded without a look at EXIF.
            record["width"], record["height"] = subject.height, subject.width
        if rng.random() < _SHARE_WRONG_SIZE:
            record["width"], record["height"] = (int(side) for side in rng.integers(64, 2000, size=2))
        for keys in (["similarity"], ["pwatermark"], ["punsafe"], ["width", "height"]):
            if rng.random() < _SHARE_NULL:
                record.update(dict.fromkeys(keys))
        if entry.fault in ("visible_watermark", "false_watermark"):
            record["pwatermark"] = _rounded(rng.uniform(0.6, 0.99))
        if entry.fault == "unsafe":
            record["punsafe"] = _rounded(rng.uniform(0.6, 0.99))
        return record

    def truth_record(self, row: int) -> dict[str, Any]:
        """The row of `truth.parquet`."""
        entry, subject = self.rows[row], self.subject(row)
        shown = entry.fault not in PICTURELESS
        scene = subject.scene.to_record() if shown and subject.scene else None
        return {
            "row": row,
            "kind": entry.kind,
            "fault": entry.fault,
            "expected_status": entry.expected_status,
            "expected_filter": entry.expected_filter,
            "scene": json.dumps(scene, sort_keys=True) if scene else None,
            "good_caption": subject.long if shown else None,
        }

    def _draw_subject(self, entry: Row) -> Subject:
        if entry.original is not None:
            original = self.subject(entry.original)
            return CHANGED[entry.fault](original) if entry.fault in CHANGED else original
        seed = seed_of(self.source, "subject", entry.fault or entry.kind, entry.index)
        if entry.kind == "digit" or entry.fault == "png_grey":
            return digits_subject(seed)
        return photo_subject(seed) if entry.kind == "photo" else scene_subject(seed, entry.fault)


def write_urls(world: DemoWorld, urls_path: str | Path, truth_path: str | Path) -> None:
    """Write the list that the download reads, and the truth that only reports may read.

    `urls`: row, url, caption, similarity, pwatermark, punsafe, width, height; scores and sizes are null
    here and there. `truth`: row, kind (scene, digit, photo, fault), fault (null if none), expected_status,
    expected_filter (kept, or the first criterion of the default filter that fails), scene (JSON of
    `Scene.to_record`, of the upright picture; null if it shows none), good_caption (null without a
    picture).
    """
    # Imported here: a server, which writes nothing, starts in half the time.
    import polars as pl

    from darkroom.store import write_table

    integer, text = pl.Int64(), pl.String()
    truth = {"row": integer} | dict.fromkeys(
        ("kind", "fault", "expected_status", "expected_filter", "scene", "good_caption"), text
    )
    records = [world.truth_record(row) for row in range(len(world))]
    write_table(urls_path, list_of(world), sort_by="row")
    write_table(truth_path, pl.DataFrame(records, schema=truth), sort_by="row")


def list_of(world: DemoWorld) -> "pl.DataFrame":
    """The list, see `write_urls`."""
    import polars as pl

    integer, real, text = pl.Int64(), pl.Float64(), pl.String()
    schema = {"row": integer, "url": text, "caption": text, "similarity": real, "pwatermark": real}
    schema |= {"punsafe": real, "width": integer, "height": integer}
    return pl.DataFrame([world.list_record(row) for row in range(len(world))], schema=schema)


def _rounded(value: float) -> float:
    return round(float(value), 6)
