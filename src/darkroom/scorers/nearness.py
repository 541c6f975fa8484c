"""What scorers share that say which pictures look alike: options, and `perceptual_hash` as numbers."""

from typing import TYPE_CHECKING

from pydantic import Field

from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from darkroom.scorers.hamming import Hashes, Near

_WORDS = 4


class Nearness(Section):
    """How much pictures may differ that are near each other."""

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

    @property
    def near(self) -> "Near":
        """For the search."""
        from darkroom.scorers.hamming import Near

        return Near(self.max_low_bits, self.max_bits, self.max_colour)


def hashes_of(rows: "pl.DataFrame") -> "Hashes":
    """The columns of `perceptual_hash`, none of them null, as the search takes them."""
    import numpy as np

    from darkroom.scorers.hamming import Hashes

    colours = rows.select("phash_cb", "phash_cr").to_numpy().astype(np.int16)
    return Hashes(_words(rows["phash"]), _words(rows["phash_mirrored"]), colours)


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
