"""What goes wrong on the demo's web: every fault, how often, and how the stages are to judge it."""

from dataclasses import dataclass

FULL_WORLD_ROWS = 5_400
"""`Fault.number` is for a world of so many faultless rows; smaller and larger worlds scale it."""

KEPT = "kept"
CRITERIA = (
    "pwatermark", "punsafe", "min_side_px", "max_aspect_ratio", "duplicate", "near_duplicate", "sharpness",
    "watermark", "clip_duplicate", "clip_similarity",
)  # fmt: skip
"""The filter's criteria in its order, after "download"."""


@dataclass(frozen=True)
class Fault:
    """One way to go wrong.

    Args:
        name: what `truth.parquet` calls it.
        number: rows in a world of FULL_WORLD_ROWS.
        outcome: the status of its download; or, where that is ok, KEPT or the criterion of the default
            filter that drops it.
        what: one phrase for people.
        least: rows in the smallest world.
        most: rows in the largest world; None has no bound.
        of_another: it repeats an earlier row.
    """

    name: str
    number: int
    outcome: str
    what: str
    least: int = 1
    most: int | None = None
    of_another: bool = False

    @property
    def expected_status(self) -> str:
        """The word that download is to write."""
        return "ok" if self.outcome == KEPT or self.outcome in CRITERIA else self.outcome

    @property
    def expected_filter(self) -> str:
        """KEPT, or the first criterion that fails."""
        return self.outcome if self.expected_status == "ok" else "download"

    def num_rows(self, num_faultless: int) -> int:
        """How many rows have this fault in a world of `num_faultless` others."""
        scaled = max(self.least, round(self.number * num_faultless / FULL_WORLD_ROWS))
        return scaled if self.most is None else min(scaled, self.most)


# fmt: off
FAULTS = (
    # The server answers badly.
    Fault("not_found",         10, "http_404",           "the picture is gone"),
    Fault("gone",               3, "http_410",           "the picture is gone for good"),
    Fault("unavailable_once",   3, KEPT,                 "503 to the first request, then the picture"),
    Fault("slow_drip",          2, "timeout",            "a few bytes at a time, for too long", most=2),
    Fault("stall",              3, "timeout",            "silence, at once or within the body", most=3),
    Fault("reset",              3, "connection_error",   "reset, before or within the body"),
    Fault("cut_short",          2, "connection_error",   "closed before the announced length"),
    Fault("too_many_bytes",     2, "too_many_bytes",     "endless, with and without a length", most=4),
    Fault("opted_out",          4, "opted_out",          "X-Robots-Tag refuses training"),
    Fault("empty_body",         3, "empty_body",         "200 and not a byte"),
    Fault("html_page",          4, "not_an_image",       "200 and a page that says sorry, named .jpg"),
    # The address leads elsewhere.
    Fault("redirect",           4, KEPT,                 "moved, by one of the five codes"),
    Fault("redirect_loop",      2, "too_many_redirects", "two addresses that point at each other"),
    Fault("redirect_private",   3, "blocked_address",    "a redirect into somebody's network"),
    Fault("redirect_file",      2, "blocked_scheme",     "a redirect to a file of the reader's machine"),
    Fault("private_address",    2, "blocked_address",    "an address in somebody's network"),
    Fault("file_url",           2, "blocked_scheme",     "a file of the reader's machine"),
    Fault("other_scheme",       2, "blocked_scheme",     "ftp: or data:"),
    Fault("same_url",           4, "duplicate_url",      "the URL of a row a little before", of_another=True),
    # The file is broken, or nothing to train on.
    Fault("truncated_jpeg",     5, "truncated_image",    "a JPEG cut, at its announced length"),
    Fault("decompression_bomb", 2, "too_many_pixels",    "30000 x 30000 pixels in a megabyte"),
    Fault("animated_gif",       3, "animated_image",     "a GIF of two frames"),
    Fault("jpeg2000",           2, "unsupported_image",  "a JPEG 2000"),
    Fault("svg",                1, "unsupported_image",  "a vector drawing"),
    # The file is good and needs care.
    Fault("exif_orientation",   8, KEPT,                 "turned or mirrored: all 8 orientations", least=8),
    Fault("png_16bit",          4, KEPT,                 "a PNG of 16 bits a channel"),
    Fault("png_grey",           4, KEPT,                 "a PNG of one channel, 8 or 16 bits", least=2),
    Fault("png_rgba",           3, KEPT,                 "a PNG with a transparent ground that hides black"),
    Fault("png_palette",        3, KEPT,                 "a PNG with a palette and a transparent entry"),
    Fault("cmyk_jpeg",          4, KEPT,                 "a JPEG for print"),
    Fault("webp_named_jpg",     4, KEPT,                 "a WebP that calls itself a JPEG"),
    # The filter's work.
    Fault("visible_watermark", 16, "pwatermark",         "a visible watermark, and scored so"),
    Fault("missed_watermark",   8, "watermark",          "a visible watermark that the list does not know of"),
    Fault("false_watermark",    6, "pwatermark",         "scored as watermarked, and is not"),
    Fault("unsafe",             6, "punsafe",            "scored as unsafe"),
    Fault("too_small",          8, "min_side_px",        "both sides below 64 pixels"),
    Fault("panorama",           6, "max_aspect_ratio",   "more than three times as wide as high"),
    Fault("exact_duplicate",    8, "duplicate",          "the bytes of an earlier one", of_another=True),
    Fault("near_duplicate",    12, "near_duplicate",     "an earlier one, made smaller", of_another=True),
    Fault("square_copy",       12, "clip_duplicate",     "the middle square of an earlier one", of_another=True),
    Fault("blown_up",           6, "sharpness",          "a thumbnail of 8 pixels, blown up"),
)
# fmt: on

BY_NAME = {fault.name: fault for fault in FAULTS}
