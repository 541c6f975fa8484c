"""The evaluation's pictures: drawn in fixed groups of prompts, kept as they come, never drawn twice.

They lie in GenEval's layout, `<00000>/metadata.jsonl` and `<00000>/samples/<0000>.png`. A prompt's folder
appears whole or not at all, so an interrupted evaluation goes on where it stopped.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.config.run import Evaluate
from darkroom.evaluate.geneval import Record, read_records
from darkroom.store import replacing

# (prompts, (prompt index, picture index) of each) -> uint8, (pictures, height, width, 3)
Drawer = Callable[[Sequence[str], Sequence[tuple[int, int]]], np.ndarray]

_LOG = logging.getLogger(__name__)


def load_prompts(settings: Evaluate) -> list[Record]:
    """The records that the settings name, at most `max_prompts` of each task, in their order."""
    if settings.prompts == "demo":
        from darkroom.demo.prompts import prompt_records

        records = prompt_records()
    else:
        records = read_records(settings.prompts)
    if not settings.max_prompts:
        return records
    seen: dict[str, int] = {}
    kept = []
    for record in records:
        seen[record["tag"]] = seen.get(record["tag"], 0) + 1
        if seen[record["tag"]] <= settings.max_prompts:
            kept.append(record)
    return kept


def prompt_folder(index: int) -> str:
    """GenEval's name for the folder of prompt `index`."""
    return f"{index:05d}"


def picture_path(index: int, picture: int) -> str:
    """Where picture number `picture` of prompt `index` lies below its model's folder."""
    return f"{prompt_folder(index)}/samples/{picture:04d}.png"


def draw_all(
    folder: str | Path,
    name: str,
    records: Sequence[Record],
    load_drawer: Callable[[], Drawer],
    settings: Evaluate,
) -> int:
    """Draw every prompt's pictures below `folder` unless they are there; return how many were drawn.

    Prompts are drawn in groups of `batch_size` pictures that do not depend on what is there already: a
    group that is not complete is drawn again as a whole, so its pictures come out of the same batch.

    Args:
        folder: where the prompts' folders go.
        name: the model's, for progress lines.
        records: the prompts.
        load_drawer: called once, and only if something is left to draw.
        settings: number and size of the pictures, batch size.

    Raises:
        ValueError: the drawer's pictures have another size than `settings.sampling` asks for.
    """
    folder, per_prompt = Path(folder), settings.num_pictures_per_prompt
    group_size = max(1, settings.batch_size // per_prompt)
    groups = [range(i, min(i + group_size, len(records))) for i in range(0, len(records), group_size)]
    missing = [g for g in groups if not all(_is_drawn(folder, i, per_prompt) for i in g)]
    if not missing:
        return 0
    drawer = load_drawer()
    started, drawn = time.monotonic(), 0
    for number, group in enumerate(missing, start=1):
        places = [(index, k) for index in group for k in range(per_prompt)]
        pictures = drawer([records[index]["prompt"] for index, _ in places], places)
        _check_pictures(pictures, len(places), settings)
        for position, index in enumerate(group):
            mine = pictures[position * per_prompt : (position + 1) * per_prompt]
            _write_prompt(folder / prompt_folder(index), records[index], mine)
        drawn += len(places)
        spent = time.monotonic() - started
        left = spent / number * (len(missing) - number)
        _LOG.info("evaluate: %s, %d pictures drawn, %.0f s, about %.0f s left", name, drawn, spent, left)
    return drawn


def read_pictures(folder: str | Path, index: int, num_pictures: int) -> np.ndarray:
    """A prompt's pictures: uint8, (pictures, height, width, 3)."""
    paths = [Path(folder) / picture_path(index, k) for k in range(num_pictures)]
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def _is_drawn(folder: Path, index: int, num_pictures: int) -> bool:
    return (folder / picture_path(index, num_pictures - 1)).exists()


def _check_pictures(pictures: np.ndarray, number: int, settings: Evaluate) -> None:
    wanted = (number, settings.sampling.height_px, settings.sampling.width_px, 3)
    if pictures.shape != wanted or pictures.dtype != np.uint8:
        raise ValueError(f"the model drew {pictures.dtype} {pictures.shape}; uint8 {wanted} was asked for")


def _write_prompt(folder: Path, record: Record, pictures: np.ndarray) -> None:
    with replacing(folder) as beside:
        (beside / "samples").mkdir(parents=True)
        (beside / "metadata.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
        for k, picture in enumerate(pictures):
            Image.fromarray(picture).save(beside / "samples" / f"{k:04d}.png")
