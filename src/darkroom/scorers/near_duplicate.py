"""Pictures that look like one that is kept already, over the whole dataset: in another size, compressed again, or
mirrored."""

from typing import TYPE_CHECKING

from pydantic import Field

from darkroom.scorers import perceptual_hash
from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

_WORDS = 4


class NearDuplicate(Section):
    """`near_duplicate`: the picture looks like one that is kept, which `near_duplicate_of` names by its row."""

    max_low_bits: int = Field(
        4, ge=1, le=6, description="of the 64 lowest frequencies' bits of `phash` those that may differ"
    )
    max_bits: int = Field(40, ge=0, le=256, description="of all 256 bits those that may differ")
    max_colour: int = Field(
        8,
        ge=0,
        le=255,
        description="by how much the means of Cb and of Cr may differ, of 255: a red ball is no blue one",
    )
    min_detail: int = Field(
        24,
        ge=1,
        le=64,
        description="pictures of a smaller `phash_detail`, such as empty ones, are near duplicates of none",
    )


def score(options: NearDuplicate, part: Part) -> "pl.DataFrame":
    """Pictures are looked at part by part, of each part those of the most pixels first, before they were reduced,
    of as many the one with the smallest row first. One is kept unless it is near one that was kept before, and
    is a near duplicate of the first of those."""
    import numpy as np
    import polars as pl

    from darkroom.components.onnx import num_threads
    from darkroom.scorers.hamming import Hashes, Near, first_near

    place = np.repeat(np.arange(len(part.lengths)), part.lengths)
    rows = part.rows.with_columns(part=pl.Series(place), at=pl.int_range(pl.len()))
    pixels = pl.col("original_width").cast(pl.Int64) * pl.col("original_height")
    judged = rows.filter((pl.col("status") == "ok") & (pl.col("phash_detail") >= options.min_detail))
    judged = judged.sort("part", -pixels, "row").select("at", "row", *perceptual_hash.SPEC.columns)
    hashes = Hashes(
        _words(judged["phash"]),
        _words(judged["phash_mirrored"]),
        judged.select("phash_cb", "phash_cr").to_numpy().astype(np.int16),
    )
    near = Near(options.max_low_bits, options.max_bits, options.max_colour)
    first = first_near(hashes, near, max(1, num_threads()))
    is_near = first != np.arange(len(first))
    at = judged["at"].to_numpy()[is_near]
    found, of = np.zeros(rows.height, bool), np.full(rows.height, -1, np.int64)
    found[at] = True
    of[at] = judged["row"].to_numpy()[first[is_near]]
    is_stored = part.rows["status"] == "ok"
    told = pl.DataFrame({"near_duplicate": found, "near_duplicate_of": of})
    return told.select(
        near_duplicate=pl.when(is_stored).then("near_duplicate"),
        near_duplicate_of=pl.when("near_duplicate").then("near_duplicate_of"),
    )


def _words(hashes: "pl.Series") -> "np.ndarray":
    """uint64 (n, 4) of 64 hexadecimal digits each."""
    import numpy as np
    import polars as pl

    binary = hashes.str.decode("hex")
    words = [
        binary.bin.slice(8 * word, 8).bin.reinterpret(dtype=pl.UInt64, endianness="big").to_numpy()
        for word in range(_WORDS)
    ]
    return np.stack(words, axis=1)


SPEC = Scorer(
    name="near_duplicate",
    section=NearDuplicate,
    columns={"near_duplicate": "Boolean", "near_duplicate_of": "Int64"},
    reads="dataset",
    needs=("original_width", "original_height"),
    score=score,
    after=(perceptual_hash.SPEC.name,),
    copy_of="near_duplicate_of",
)
