"""Whether captions are right: of the demo's scenes the truth is known."""

import json
from pathlib import Path

import polars as pl

from darkroom.store import read_table
from darkroom_demo.captions import claims, is_right
from darkroom_demo.scenes import Scene

TRUTH = "truth.parquet"


def shapes_are_right(caption: str, scene: Scene) -> bool:
    """Whether a caption names the scene's shapes and their number, and no colour that is not there."""
    left = [(thing.shape, thing.color) for thing in scene.things]
    for (shape, color), number in sorted(claims(caption).items(), key=lambda item: item[0][1] is None):
        for _ in range(number):
            match = next((t for t in left if t[0] == shape and color in (None, t[1])), None)
            if match is None:
                return False
            left.remove(match)
    return not left


def caption_is_right(kind: str, caption: str | None, scene: Scene) -> bool:
    """Whether a caption of a kind names exactly a scene's shapes with their colours and number.

    The short caption may leave colours out; it is wrong if it names one that is not there.
    """
    return (shapes_are_right if kind == "short" else is_right)(caption or "", scene)


def judge_captions(folder: Path, captions: pl.DataFrame) -> pl.DataFrame | None:
    """See `Truth.judge`; None where the list was made elsewhere, and its truth is not here."""
    path = folder / TRUTH
    if not path.exists():
        return None
    truth = read_table(path, ["row", "kind", "scene"])
    known = captions.select("row").join(truth, on="row", how="left", maintain_order="left")
    scenes = [Scene.from_record(json.loads(text)) if text else None for text in known["scene"]]
    columns = [known["kind"].alias("sort")]
    for name in captions.columns:
        if name.startswith("caption_"):
            kind = name.removeprefix("caption_")
            right = [
                None if scene is None else caption_is_right(kind, text, scene)
                for text, scene in zip(captions[name], scenes, strict=True)
            ]
            columns.append(pl.Series(f"{kind}_right", right, dtype=pl.Boolean))
    return pl.DataFrame(columns)
