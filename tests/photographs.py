"""Photographs that scikit-image ships, and parts of a download that hold them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import skimage
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from darkroom import store
from darkroom.components.base import Component
from darkroom.score import score_part

PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "retina",
    "hubble_deep_field",
    "ihc",
    "motorcycle_left",
)


def photograph(name: str) -> Image.Image:
    (path,) = Path(skimage.__file__).parent.glob(f"data/{name}.*")
    with Image.open(path) as image:
        return image.convert("RGB")


def write_over(picture: Image.Image, text: str, at: tuple[float, float], height: float) -> None:
    """Write half transparent white letters; place and height are shares of the picture's width and height."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), round(height * picture.height))
    place = (at[0] * picture.width, at[1] * picture.height)
    ImageDraw.Draw(picture, "RGBA").text(place, text, font=font, fill=(255, 255, 255, 160))


def write_part(folder: Path, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Write a part of these pictures, and a last row without one; give them as they are stored."""
    members, stored = [], []
    for row, picture in enumerate(pictures):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=95)
        members.append((f"{row:032x}.jpg", file.getvalue()))
        stored.append(Image.open(file).convert("RGB"))
    spans = store.write_tar(folder / "part-00000.tar", members)
    rows = []
    for row in range(len(pictures) + 1):
        offset, size = spans.get(f"{row:032x}.jpg", (None, None))
        status = "ok" if size else "timeout"
        rows.append({"uid": f"{row:032x}", "row": row, "status": status, "offset": offset, "size": size})
    store.write_table(folder / "part-00000.parquet", pl.DataFrame(rows, infer_schema_length=None))
    return stored


def scores(
    folder: Path, scorer: str, options: Mapping[str, Any], components: Mapping[str, Component] | None = None
) -> pl.DataFrame:
    """What a scorer says of the part in a folder, in the order of its pictures."""
    out = folder / f"part-00000.{scorer}.parquet"
    score_part(
        scorer, options, folder / "part-00000.parquet", folder / "part-00000.tar", out, components or {}
    )
    return store.read_table(out)
