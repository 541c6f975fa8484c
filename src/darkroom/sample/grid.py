"""A sheet of pictures with their captions, for samples during training and for the report."""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from darkroom.store import replacing

PAPER, INK = (255, 255, 255), (40, 40, 40)


def make_grid(
    pictures: np.ndarray,
    captions: list[str] | None = None,
    num_columns: int = 4,
    cell_px: int = 0,
    padding_px: int = 6,
    font_px: int = 11,
) -> Image.Image:
    """Pictures in rows from the top left, each above its caption.

    Args:
        pictures: uint8 (K, H, W, 3), K >= 1.
        captions: K strings, wrapped to the cell's width; None leaves no room for them.
        cell_px: width that pictures are scaled to (nearest neighbour); 0 keeps their size.
    Raises:
        ValueError: when there are no pictures, or not one caption for each.
    """
    if len(pictures) == 0:
        raise ValueError("there are no pictures to put into a grid")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures; one for each is needed")
    height, width = pictures.shape[1:3]
    cell_width = cell_px or width
    cell_height = round(height * cell_width / width)
    font = ImageFont.load_default(size=font_px)
    line_px = font_px + 2
    # 0.55 of the size is about the mean width of the font's letters.
    letters = max(4, int(cell_width / (0.55 * font_px)))
    lines = [textwrap.wrap(caption, letters) for caption in captions or [""] * len(pictures)]
    text_px = max(len(wrapped) for wrapped in lines) * line_px
    num_columns = min(num_columns, len(pictures))
    num_rows = -(-len(pictures) // num_columns)
    step_x, step_y = cell_width + padding_px, cell_height + text_px + padding_px
    sheet = Image.new("RGB", (num_columns * step_x + padding_px, num_rows * step_y + padding_px), PAPER)
    pen = ImageDraw.Draw(sheet)
    for k, (picture, wrapped) in enumerate(zip(pictures, lines, strict=True)):
        row, column = divmod(k, num_columns)
        left, top = padding_px + column * step_x, padding_px + row * step_y
        cell = Image.fromarray(picture)
        if cell.size != (cell_width, cell_height):
            cell = cell.resize((cell_width, cell_height), Image.Resampling.NEAREST)
        sheet.paste(cell, (left, top))
        for i, line in enumerate(wrapped):
            pen.text((left, top + cell_height + i * line_px), line, fill=INK, font=font)
    return sheet


def write_grid(
    path: str | Path,
    pictures: np.ndarray,
    captions: list[str] | None = None,
    num_columns: int = 4,
    cell_px: int = 0,
) -> Path:
    """`make_grid`, written as a PNG without metadata: the same pictures always give the same bytes."""
    path = Path(path)
    sheet = make_grid(pictures, captions, num_columns, cell_px)
    with replacing(path) as beside:
        sheet.save(beside, format="PNG")
    return path
