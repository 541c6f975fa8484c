"""The draw stage: pictures of held-out prompts from a model, each from its own noise.

Picture k of prompt p has the seed of (seed, p, k), whatever the model: pictures of two models are paired.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.table import prompts_name, read_prompts
from darkroom.config.run import Draw
from darkroom.draw.chunks import groups_of
from darkroom.imports import quick_imports
from darkroom.sample.seeds import picture_seed
from darkroom.store import read_manifest, replacing, sha256_json
from darkroom.store.drawn import write_chunk

# (prompts, (prompt index, picture index) of each) -> uint8, (pictures, height, width, 3)
Drawer = Callable[[Sequence[str], Sequence[tuple[int, int]]], np.ndarray]

MODELS = ("trained", "untrained")

_LOG = logging.getLogger(__name__)


def write_prompts(settings: Draw, out: str | Path) -> list[Record]:
    """Write the records that are drawn, a JSON line each, and return them.

    Raises:
        ValueError: the prompts cannot be read; says which file and line.
    """
    records = read_prompts(settings.prompts, settings.max_prompts)
    with replacing(out) as beside:
        beside.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records


def draw_chunk(
    model: str,
    chunk: str,
    records: Sequence[Record],
    drawer: Drawer,
    settings: Draw,
    tar: str | Path,
    table: str | Path,
) -> int:
    """Draw a chunk's pictures; write its tar and its table; return how many pictures it holds.

    Args:
        model: "trained" or "untrained", for the table.
        chunk: one of `chunk_names`.
        records: all prompts.
        drawer: draws them, see `load_drawer`.
        settings: the run's `draw` section.
        tar, table: files to write.

    Raises:
        ValueError: there is no such chunk, or the drawer's pictures have another size than was asked for.
    """
    return write_chunk(model, _drawn(model, chunk, records, drawer, settings), Path(tar), Path(table))


def _drawn(
    model: str, chunk: str, records: Sequence[Record], drawer: Drawer, settings: Draw
) -> Iterator[tuple[int, Record, list[int], np.ndarray]]:
    """(index, record, seeds, pictures) of each prompt of a chunk."""
    groups, per_prompt = list(groups_of(settings, len(records), chunk)), settings.num_pictures_per_prompt
    started = time.monotonic()
    for number, group in enumerate(groups, start=1):
        places = [(index, k) for index in group for k in range(per_prompt)]
        pictures = drawer([records[index]["prompt"] for index, _ in places], places)
        _check_pictures(pictures, len(places), settings)
        spent = time.monotonic() - started
        left = spent / number * (len(groups) - number)
        _LOG.info(
            "draw: %s, %s, %d of %d prompts, %.0f s, about %.0f s left",
            model, chunk, group.stop - groups[0].start, groups[-1].stop - groups[0].start, spent, left,
        )  # fmt: skip
        for position, index in enumerate(group):
            seeds = [picture_seed(settings.seed, index, k) for k in range(per_prompt)]
            mine = pictures[position * per_prompt : (position + 1) * per_prompt]
            yield index, records[index], seeds, mine


def load_drawer(model: Path, pipeline: Path, settings: Draw) -> Drawer:
    """A model as a function of prompts and of the places that seed their noise.

    `model` is a pipeline's folder, or a transformer's, which then borrows the rest from `pipeline`.
    """
    with quick_imports():
        from darkroom.precision import described
        from darkroom.sample.model import load_model
        from darkroom.sample.options import DrawOptions

    loaded = load_model(model, borrow_from=pipeline)
    options = DrawOptions(settings.sampling, batch_size=settings.batch_size, dtype=settings.dtype)
    _LOG.info("draw: %s", described(settings.dtype, loaded.device))

    def drawer(prompts: Sequence[str], places: Sequence[tuple[int, int]]) -> np.ndarray:
        seeds = [picture_seed(settings.seed, prompt, picture) for prompt, picture in places]
        return loaded.draw(prompts, seeds, options)

    return drawer


def remove_other_chunks(manifests: Sequence[str | Path]) -> list[Path]:
    """Remove the chunks of an earlier cut of the prompts, and return what was removed.

    The folder of pictures is published as a whole: it holds what the stage's manifest names and nothing older.

    Args:
        manifests: of every chunk of every model, as they lie in the stage's folder.
    """
    kept = {Path(path).parent / name for path in manifests for name in read_manifest(path)["files"]}
    folders = {path.parent for path in kept}
    found = [path for folder in sorted(folders) for path in sorted(folder.glob("chunk-*"))]
    others = [path for path in found if path not in kept]
    for path in others:
        path.unlink()
    if others:
        _LOG.info("draw: %d files of chunks that are none any more were removed", len(others))
    return others


def draw_protocol(settings: Draw, records: Sequence[Record]) -> dict[str, Any]:
    """What pictures depend on besides the model."""
    name = prompts_name(settings.prompts)
    return {
        "prompts": {"name": name, "number": len(records), "sha256": sha256_json(list(records))},
        "sampling": settings.sampling.model_dump(mode="json"),
        "seed": settings.seed,
        "pictures_per_prompt": settings.num_pictures_per_prompt,
    }


def _check_pictures(pictures: np.ndarray, number: int, settings: Draw) -> None:
    wanted = (number, settings.sampling.height_px, settings.sampling.width_px, 3)
    if pictures.shape != wanted or pictures.dtype != np.uint8:
        raise ValueError(f"the model drew {pictures.dtype} {pictures.shape}; uint8 {wanted} was asked for")
