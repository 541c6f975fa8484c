"""The order of the demo's list: which row is what, at which URL."""

import zlib
from dataclasses import dataclass

import numpy as np

from darkroom_demo.addresses import BASE, picture_path, special_url
from darkroom_demo.faults import BY_NAME, FAULTS, KEPT
from darkroom_demo.scenes import sample_scene, square_of
from darkroom_demo.section import DemoSource

_BLOCK_ROWS = 10
_EARLY_ROWS = 100
_SLOW = ("slow_drip", "stall")
_ENDINGS = (".jpg", ".png", ".webp")
_ENDINGS_UP_TO = (0.83, 0.95)
_FAULT_ENDINGS = {"animated_gif": ".gif", "svg": ".svg", "jpeg2000": ".jp2"} | dict.fromkeys(
    ("png_16bit", "png_grey", "png_rgba", "png_palette", "decompression_bomb"), ".png"
)


@dataclass(frozen=True)
class Row:
    """One row of the list.

    Args:
        row: its number.
        kind: scene, digit, photo or fault.
        fault: the fault's name, or None.
        index: its number among the rows of this kind, or of this fault.
        original: the row that a repeating fault repeats, else None.
        url: as the list has it.
        ending: of the file that is served, e.g. ".jpg".
        quality: of a JPEG or WebP.
    """

    row: int
    kind: str
    fault: str | None
    index: int
    original: int | None
    url: str
    ending: str
    quality: int

    @property
    def expected_status(self) -> str:
        """The word that download is to write."""
        return BY_NAME[self.fault].expected_status if self.fault else "ok"

    @property
    def expected_filter(self) -> str:
        """KEPT, or the first criterion of the default filter that is to drop it."""
        return BY_NAME[self.fault].expected_filter if self.fault else KEPT

    @property
    def path(self) -> str | None:
        """What the nominal host is asked for, with the query; None if the URL leads elsewhere."""
        return self.url.removeprefix(BASE) if self.url.startswith(BASE + "/") else None


def seed_of(source: DemoSource, *parts: str | int) -> list[int]:
    """The seed of one thing in the world: no other thing's numbers move it."""
    return [source.seed, *(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts)]


def count_rows(source: DemoSource) -> int:
    """How many rows the list of a source has, faults included."""
    return len(_items(source))


def lay_out(source: DemoSource) -> list[Row]:
    """The whole list: scenes, digits, photographs and faults, shuffled."""
    items = _items(source)
    rng = np.random.default_rng(seed_of(source, "order"))
    order = [items[i] for i in rng.permutation(len(items))]
    _bring_forward(order, rng)
    originals = _choose_originals(source, order, rng)
    rows: list[Row] = []
    for number, (kind, fault_name, index) in enumerate(order):
        original = rows[originals[number]] if number in originals else None
        rows.append(_make_row(source, number, kind, fault_name, index, original))
    return rows


def _items(source: DemoSource) -> list[tuple[str, str | None, int]]:
    """(kind, fault, index) of every row, in no order yet."""
    numbers = {"scene": source.num_scenes, "digit": source.num_digits, "photo": source.num_photos}
    items: list[tuple[str, str | None, int]] = [(k, None, i) for k, n in numbers.items() for i in range(n)]
    num_faultless = len(items)
    for fault in FAULTS:
        items += [("fault", fault.name, i) for i in range(fault.num_rows(num_faultless))]
    return items


def _bring_forward(order: list[tuple[str, str | None, int]], rng: np.random.Generator) -> None:
    """Put the slow answers among the first rows: the rest is fetched while they are waited for."""
    early = [i for i in range(min(_EARLY_ROWS, len(order))) if order[i][1] not in _SLOW]
    for i in range(_EARLY_ROWS, len(order)):
        if order[i][1] in _SLOW:
            j = early.pop(int(rng.integers(len(early))))
            order[i], order[j] = order[j], order[i]


def _choose_originals(
    source: DemoSource, order: list[tuple[str, str | None, int]], rng: np.random.Generator
) -> dict[int, int]:
    """Repeating fault's row -> row of an earlier scene; moves a fault behind a scene if there is none.

    A URL is repeated within a block of rows, so that parts of any multiple of the block see both.
    """
    originals: dict[int, int] = {}
    repeating = [i for i, (_, fault, _) in enumerate(order) if fault and BY_NAME[fault].of_another]
    for repeat in repeating:
        start = repeat // _BLOCK_ROWS * _BLOCK_ROWS
        same_url = order[repeat][1] == "same_url"
        near = range(start, min(start + _BLOCK_ROWS, len(order))) if same_url else range(len(order))
        scenes = [i for i in near if order[i][0] == "scene"] or [
            i for i in range(len(order)) if order[i][0] == "scene"
        ]
        earlier = [i for i in scenes if i < repeat]
        if earlier:
            is_square = order[repeat][1] == "square_copy"
            originals[repeat] = (
                _to_cut(source, order, earlier, rng) if is_square else int(rng.choice(earlier))
            )
            continue
        later = int(rng.choice([i for i in scenes if i not in originals.values()]))
        order[repeat], order[later] = order[later], order[repeat]
        originals[later] = repeat
    return originals


def _to_cut(
    source: DemoSource, order: list[tuple[str, str | None, int]], scenes: list[int], rng: np.random.Generator
) -> int:
    """One of some scenes whose middle square shows all that it shows; any of them where none is such."""
    drawn = [int(row) for row in rng.permutation(scenes)]
    seeds = ((row, seed_of(source, "subject", "scene", order[row][2])) for row in drawn)
    fits = (row for row, seed in seeds if square_of(sample_scene(np.random.default_rng(seed))))
    return next(fits, drawn[0])


def _make_row(
    source: DemoSource, number: int, kind: str, fault: str | None, index: int, original: Row | None
) -> Row:
    name = fault or kind
    rng = np.random.default_rng(seed_of(source, "file", name, index))
    ending = _ENDINGS[int(np.searchsorted(_ENDINGS_UP_TO, rng.random()))]
    quality = int(rng.integers(85, 96))
    if fault:
        ending = _FAULT_ENDINGS.get(fault, ".jpg")
    if fault == "exact_duplicate" and original:
        ending = original.ending
    mark = f"{zlib.crc32(f'{name} {index}'.encode()):08x}{index:x}"
    url = special_url(fault, index) if fault else None
    url = url or BASE + picture_path(rng, ending, mark)
    if fault == "same_url" and original:
        url = original.url
    return Row(number, kind, fault, index, original.row if original else None, url, ending, quality)
