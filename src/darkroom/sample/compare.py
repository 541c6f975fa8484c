"""Two models on the same prompts and seeds: side by side, and how sure their difference in CLIPScore is."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from darkroom.metrics.clip_score import clip_scores
from darkroom.metrics.intervals import bootstrap, bounds
from darkroom.sample.grid import make_grid

NUM_BOOTSTRAP = 2000
ONE_TASK = "prompts"


class Clip(Protocol):
    """What a comparison needs of a CLIP."""

    def encode_images(self, images: Any) -> Any:
        """uint8 (height, width, 3) pictures -> (pictures, dimensions)."""

    def encode_texts(self, texts: list[str]) -> Any:
        """Texts -> (texts, dimensions)."""


def scores(clip: Clip, pictures: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """CLIPScore of each picture (K, H, W, 3) and its prompt: float64 (K,)."""
    images = np.asarray(clip.encode_images(list(pictures)))
    return clip_scores(images, np.asarray(clip.encode_texts(list(prompts))))


def paired(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One row for each prompt and seed: both models' scores, and tuned - baseline.

    Args:
        tables: "baseline" and "tuned" -> columns prompt_index, prompt, seed, clip_score; the same rows in both.
    """
    keys = ["prompt_index", "prompt", "seed"]
    baseline, tuned = (
        tables[name].select(*keys, pl.col("clip_score").alias(name)) for name in ("baseline", "tuned")
    )
    joined = baseline.join(tuned, on=keys, how="inner", validate="1:1", maintain_order="left")
    assert len(joined) == len(baseline) == len(tuned), "both models draw the same prompts and seeds"
    return joined.with_columns((pl.col("tuned") - pl.col("baseline")).alias("difference"))


def summary(pairs: pl.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Means, and the 95 % interval of the mean difference over prompts (pictures of a prompt stay together)."""
    by_prompt = pairs.group_by("prompt_index", maintain_order=True).agg(pl.col("difference").mean())
    values = by_prompt["difference"].to_numpy()
    drawn = bootstrap([ONE_TASK] * len(values), values, NUM_BOOTSTRAP, seed)
    interval = bounds({"difference": drawn["micro"]})
    means = {name: float(pairs[name].mean()) for name in ("baseline", "tuned")}  # type: ignore[arg-type]
    return {"num_prompts": len(values), **means, "difference": float(values.mean()), **interval}


def side_by_side(drawn: dict[str, np.ndarray], labels: Sequence[str], cell_px: int = 0) -> Any:
    """A sheet with a row for each picture and a column for each model.

    Args:
        drawn: model -> uint8 (K, H, W, 3), K alike.
        labels: what each of the K pictures shows.
    """
    names = list(drawn)
    pictures = np.stack([drawn[name][k] for k in range(len(labels)) for name in names])
    captions = [f"{name}: {label}" if len(names) > 1 else label for label in labels for name in names]
    num_columns = len(names) if len(names) > 1 else min(4, len(labels))
    return make_grid(pictures, captions, num_columns, cell_px)
