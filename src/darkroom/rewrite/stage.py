"""The rewrite stage: the captions of one part, written anew by a language model in the order of their uids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL.Image import Image

from darkroom.captioners.scratch import forget, scratch_folder
from darkroom.components.base import Component
from darkroom.config.gates import RewriteGates
from darkroom.recaption.asking import Key, caption_all
from darkroom.recaption.gated import gate_counts
from darkroom.recaption.subjects import Part
from darkroom.recaption.written import captions_table, counted
from darkroom.rewriters.base import RewriterSection
from darkroom.rewriters.table import REWRITERS
from darkroom.settings.captions import ORIGINAL
from darkroom.store import read_table, sha256_json, write_table
from darkroom.store.captions import caption_column, dropped_pictures

# The finish_reason of a caption whose request would hold an empty text.
NO_SOURCE = "no_source"


def rewrite_part(
    captions: str | Path,
    settings: RewriterSection,
    components: Mapping[str, Component],
    out: str | Path,
    gates: RewriteGates | None = None,
    keep_scratch: bool = False,
) -> dict[str, Any]:
    """Have captions of a part written anew, and write `out`, a row each picture, sorted by uid.

    A caption is not asked for where a text that its request holds is empty: it is empty, and ends as `no_source`.
    Pictures that gates dropped before have no row.

    Args:
        captions: the part's table of the recaption stage (uid, row, caption_NAME, dropped where there are gates).
        settings: the captions with their prompts, and how they are decoded.
        components: those that the settings name.
        out: Parquet file with the columns of `recaption.written.captions_schema`, and where the captions come
            from, as in the table of the recaption stage.
        gates: what the captions must be; None: anything.
        keep_scratch: leave what the rewriter kept beside `out` to the caller, who calls `forget`.

    Returns:
        rewritten (pictures), dropped_before, for each caption how texts ended, tokens and how many texts have each
        flag, what the gates did (`gate_counts`), and the rewriters' own counts.

    Raises:
        ValueError: the model cannot be loaded or asked. Nothing is written then.
    """
    rows, num_dropped = _rows(captions, settings)
    texts, requests = PartTexts(rows, settings, str(captions), scratch_folder(out)), settings.asked()
    asked = caption_all(texts, settings, components, gates, REWRITERS)
    keys = [{"uid": row["uid"], "row": row["row"]} for row in rows]
    made = captions_table(keys, asked, requests, gates, carried=())
    write_table(out, made, sort_by=None)
    counts: dict[str, Any] = {"rewritten": len(made), "dropped_before": num_dropped}
    counts |= {f"{name}_ended": _ends(made, name) for name in requests}
    counts |= {**counted(made, requests), **(gate_counts(made, requests) if gates else {}), **asked.counts}
    if not keep_scratch:
        forget(out, counts)
    return counts


def _rows(captions: str | Path, settings: RewriterSection) -> tuple[list[dict[str, Any]], int]:
    """(the pictures that no gate dropped, with the captions that are looked at, sorted by uid; how many were)."""
    named = {name for template in settings.templates().values() for name in template.names}
    columns = [caption_column(name) for name in sorted({ORIGINAL, *named})]
    table, dropped = read_table(captions, ["uid", "row", *columns]), dropped_pictures(captions)
    kept = table.join(dropped, on="uid", how="anti").sort("uid", "row")
    return kept.with_columns(caption=pl.col(caption_column(ORIGINAL))).to_dicts(), len(table) - len(kept)


class PartTexts(Part):
    """See `captioners.base.Texts`.

    Args:
        rows: of `_rows`.
        settings: see `rewrite_part`.
        where: the file of these, for messages.
        scratch: see `captioners.base.Subjects`.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], settings: RewriterSection, where: str, scratch: Path
    ) -> None:
        super().__init__(rows, where, scratch)
        self._templates = settings.templates()
        self._texts = [
            {name: (row[caption_column(name)] or "").strip() for name in self._named()} for row in rows
        ]
        self.unasked = dict.fromkeys(self._without_source(), NO_SOURCE)

    @property
    def content(self) -> list[str]:
        """Digests of the uids and of the texts: these may be long."""
        return [sha256_json([*self.uids]), sha256_json(self._texts)]

    def prompt(self, place: int, name: str) -> str:
        """The request for the caption `name`."""
        return self._templates[name].filled(self._texts[place])

    def hint(self, place: int, name: str) -> str | None:
        """The alt-text, where it is part of the request."""
        return self.originals[place] if ORIGINAL in self._templates[name].names else None

    def image(self, place: int) -> Image:
        """Rewritten captions are judged without their pictures; the configuration refuses gates that look."""
        raise LookupError(f"{self.where}: has no picture of {self.uids[place]}")

    def _named(self) -> list[str]:
        return sorted({name for template in self._templates.values() for name in template.names})

    def _without_source(self) -> list[Key]:
        return [
            (place, name)
            for place, texts in enumerate(self._texts)
            for name, template in self._templates.items()
            if not all(texts[named] for named in template.names)
        ]


def _ends(made: pl.DataFrame, name: str) -> dict[str, int]:
    """How the texts of a caption ended: finish_reason -> captions."""
    return dict(sorted(made[f"{name}_finish_reason"].value_counts().iter_rows()))
