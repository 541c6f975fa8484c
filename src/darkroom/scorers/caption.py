"""What a caption is like as text, with no model: its length, its repetitions, and whether it is junk."""

from typing import TYPE_CHECKING

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import polars as pl

# Words of any script; those that are written without spaces count as one.
_WORD = r"[\p{L}\p{M}\p{N}]+"
# What cameras, scanners, shops and programs call a picture, and nobody a caption.
_JUNK = "|".join(
    (
        # A file's name, a path or an address, alone.
        r"\S*[^\s.]\.(?i:jpe?g|jfif|png|gif|webp|avif|bmp|tiff?|heic|svg|psd|raw|cr2|nef)",
        r"(?i:https?://|www\.)\S+",
        # IMG_2041, DSC-0043 (2), P1010203, Screenshot 2021-03-04 at 10.11.12
        r"(?i:img|dsc[nf]?|dscf|p|pict|photo|image|picture|screen ?shot|scan|untitled|unnamed|default|"
        r"thumb(nail)?)"
        r"[\s_\-.()#:0-9a-f]*(?: at [\d.:\s]+)?",
        # Digits and signs alone, and what a program prints of an object: HASH(0x862bbb8).
        r"[^\p{L}]*",
        r"(?i:hash|array|scalar|object|code)\(0x[0-9a-f]+\)|\[object \w+\]|(?i:null|none|nan|undefined|n/?a)",
        # Digests and identifiers.
        r"(?i:[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    )
)


class Caption(Section):
    """`caption_words`; `caption_distinct`, the share of them that are distinct; `caption_junk`, whether the
    caption is a file's name, an address, an identifier or the like."""


def score(options: Caption, part: Part) -> "pl.DataFrame":
    """Null where there is no caption; an empty one has no words, no share, and is junk."""
    import polars as pl

    del options
    text = pl.col("caption").str.strip_chars()
    words = text.str.to_lowercase().str.extract_all(_WORD)
    number = words.list.len().cast(pl.Int32)
    return part.rows.select(
        caption_words=pl.when(text.is_not_null()).then(number),
        caption_distinct=pl.when(number > 0).then(words.list.n_unique().cast(pl.Float64) / number),
        caption_junk=text.str.contains(f"^(?:{_JUNK})$"),
    )


SPEC = Scorer(
    name="caption",
    section=Caption,
    columns={"caption_words": "Int32", "caption_distinct": "Float64", "caption_junk": "Boolean"},
    reads="table",
    needs=("caption",),
    score=score,
)
