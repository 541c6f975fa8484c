"""NovelAI's own rule for buckets (github.com/NovelAI/novelai-aspect-ratio-bucketing, README), by `bucket.rule`.

For every width that is a multiple of `step_px` from the least to the greatest side, the greatest height whose
area is at most `max_area_px`; the same turned on its side; and the square of `resolution_px`. A picture goes to
the bucket whose width / height is nearest to its own: the ratio itself is compared, not its logarithm.
"""

from darkroom.config.bucket import Bucket


def make_novelai_buckets(settings: Bucket) -> list[tuple[int, int]]:
    """The (width, height) of every bucket, from the tallest to the widest."""
    step, area = settings.step_px, settings.max_area_px
    assert area is not None, "checked with the configuration"
    found = {(settings.resolution_px, settings.resolution_px)}
    for width in range(settings.min_side_px, settings.max_side_px + 1, step):
        height = min(settings.max_side_px, area // (width * step) * step)
        if height >= settings.min_side_px:
            found |= {(width, height), (height, width)}
    # Of two with one aspect ratio the larger stays: a picture's ratio could not choose between them.
    best: dict[float, tuple[int, int]] = {}
    for bucket in sorted(found, key=lambda b: b[0] * b[1]):
        best[bucket[0] / bucket[1]] = bucket
    return [best[ratio] for ratio in sorted(best)]
