"""The table of scorers: `scorers` of a dataset names those that are computed.

Other packages add theirs by an entry point of the group `darkroom.scorers`, see `darkroom.kinds`.
"""

from darkroom.kinds import table
from darkroom.scorers import (
    aesthetic,
    caption,
    clip_duplicate,
    clip_embedding,
    clip_similarity,
    duplicate,
    faces,
    in_reference_set,
    language,
    near_duplicate,
    perceptual_hash,
    quality,
    size,
    text_in_picture,
    unsafe,
    watermark,
)
from darkroom.scorers.base import Scorer

SCORERS: dict[str, Scorer] = table(
    "darkroom.scorers",
    size.SPEC,
    duplicate.SPEC,
    quality.SPEC,
    caption.SPEC,
    language.SPEC,
    clip_similarity.SPEC,
    aesthetic.SPEC,
    watermark.SPEC,
    unsafe.SPEC,
    text_in_picture.SPEC,
    faces.SPEC,
    perceptual_hash.SPEC,
    near_duplicate.SPEC,
    in_reference_set.SPEC,
    clip_embedding.SPEC,
    clip_duplicate.SPEC,
)
