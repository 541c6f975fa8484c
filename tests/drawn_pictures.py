"""Drawers that know the answer, a CLIP that sees mean colours, and real pictures, for tests of what follows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from darkroom.components.base import Component
from darkroom.config.run import Draw, Evaluate
from darkroom.draw.chunks import chunk_names
from darkroom.draw.stage import draw_chunk, write_prompts
from darkroom.evaluate.stage import EvaluateInputs, evaluate
from darkroom.metrics.base import Inputs
from darkroom.metrics.extractor import Encoder, Network
from darkroom.metrics.references import References
from darkroom.metrics.stage import measure_metric
from darkroom.metrics.table import METRICS, split_by_applicability
from darkroom.store import sha256_json, write_manifest, write_part_manifest, write_table, write_tar
from darkroom.store.drawn import drawn_by_model, read_records
from darkroom_demo.prompts import prompt_records
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, Scene, Thing

DRAW = Draw(
    prompts={"kind": "demo"},
    num_pictures_per_prompt=2,
    max_prompts=3,
    batch_size=8,
    sampling={"width_px": 64, "height_px": 64},
)
SPOTS = {"left of": (0.25, 0.5), "right of": (0.75, 0.5), "above": (0.5, 0.25), "below": (0.5, 0.75)}
OTHER = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CORNERS = [(0.25, 0.25), (0.75, 0.75), (0.75, 0.25), (0.25, 0.75)]
DISTANCE = {"clip": "mean", "num_reference_pictures": 12, "batch_size": 8}
MEAN = {"mean": Component(kind="clip", path="nowhere")}
MEASURE = {
    "geneval": {"detector": "contour"},
    "clip_score": {"clip": "mean"},
    "frechet_clip_distance": DISTANCE,
    "kernel_clip_distance": DISTANCE,
}


class MeanColor:
    """A CLIP of sorts."""

    def encode_images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([p.reshape(-1, 3).mean(axis=0) / 255 for p in pictures])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 3))


def mean_clip(*_: Any) -> Network:
    """Stands for what loads a CLIP in `darkroom.metrics.extractor`."""
    identity = {"name": "mean", "sha256": "0" * 64, "resize": "none"}
    return Network(MeanColor(), Encoder("clip", identity, "mean, none"))


def scene_of(record: dict[str, Any]) -> Scene:
    kinds = [(i["class"], i.get("color")) for i in record["include"] for _ in range(i["count"])]
    spots = CORNERS
    if record["tag"] == "position":
        relation = record["include"][1]["position"][0]
        spots = [SPOTS[OTHER[relation]], SPOTS[relation]]
    if len(kinds) == 1:
        spots = [(0.5, 0.5)]
    things = tuple(
        Thing(shape, color or COLORS[0], x, y, 0.4, 0.0)
        for (shape, color), (x, y) in zip(kinds, spots, strict=False)
    )
    return Scene(record["tag"], things, "plain", "white", 64, 64, 0)


def perfect(prompts, _places):
    by_prompt = {r["prompt"]: r for r in prompt_records()}
    return np.stack([render(scene_of(by_prompt[p])) for p in prompts])


def noise(prompts, places):
    return np.stack(
        [
            np.random.default_rng(place).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            for _, place in zip(prompts, places, strict=True)
        ]
    )


def write_references(folder: Path) -> References:
    """Two parts of ten pictures whose left edge, which is black, is cropped away."""
    rng = np.random.default_rng(1)
    tables, tars, buckets = [], [], []
    for part in range(2):
        rows, members = [], []
        for i in range(10):
            picture = np.full((60, 90, 3), rng.integers(0, 256, 3), np.uint8)
            picture[:, :9] = 0  # cropped away
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            rows.append({"uid": f"{i:02d}{part}", "row": i, "width": 90, "height": 60})
            members.append((f"{i:02d}{part}.jpg", jpeg))
        spans = write_tar(folder / f"{part}.tar", members)
        table = pl.DataFrame(rows).with_columns(
            offset=pl.Series([spans[n][0] for n, _ in members]),
            size=pl.Series([spans[n][1] for n, _ in members]),
        )
        place = {"bucket_width": 60, "bucket_height": 60, "resized_width": 90, "resized_height": 60}
        place |= {"crop_left": 15, "crop_top": 0}
        bucket = table.select("uid", "row").with_columns(**{k: pl.lit(v) for k, v in place.items()})
        write_table(folder / f"{part}.parquet", table)
        write_table(folder / f"{part}.buckets.parquet", bucket)
        tables.append(folder / f"{part}.parquet")
        tars.append(folder / f"{part}.tar")
        buckets.append(folder / f"{part}.buckets.parquet")
    return References(tables, tars, buckets)


@dataclass
class Judged:
    """The stages draw, measure and evaluate in a folder, as the rules run them."""

    folder: Path
    references: References
    draw: Draw = DRAW
    measure: dict[str, dict[str, Any]] | None = None

    @property
    def chosen(self) -> dict[str, dict[str, Any]]:
        return MEASURE if self.measure is None else self.measure

    @property
    def records(self) -> list[dict[str, Any]]:
        return read_records(self.folder / "draw/prompts.jsonl")

    @property
    def chunks(self) -> dict[str, list[Path]]:
        """Ending -> the files of all chunks, model by model."""
        names = chunk_names(self.draw, len(self.records))
        folder = self.folder / "draw/pictures"
        return {
            ending: [folder / m / f"{c}.{ending}" for m in ("trained", "untrained") for c in names]
            for ending in ("parquet", "tar")
        }

    def draw_all(self, **drawers: Any) -> None:
        """Draw every chunk of both models."""
        write_prompts(self.draw, self.folder / "draw/prompts.jsonl")
        manifests = []
        for table, tar in zip(self.chunks["parquet"], self.chunks["tar"], strict=True):
            model = tar.parent.name
            drawer = {"trained": perfect, "untrained": noise, **drawers}[model]
            draw_chunk(model, tar.stem, self.records, drawer, self.draw, tar, table)
            manifests.append(self.folder / f"draw/{model}-{tar.stem}.json")
            write_part_manifest(manifests[-1], [tar, table], {}, sha256_json({}))
        write_manifest(self.folder / "draw/manifest.json", stage="draw", params={}, part_manifests=manifests)

    def measured(self) -> list[str]:
        """The metrics that say something of the prompts."""
        return split_by_applicability(self.chosen, self.records)[0]

    def measure_one(self, name: str) -> dict[str, int]:
        """Measure one metric."""
        inputs = Inputs(
            drawn_by_model(self.chunks["parquet"], self.chunks["tar"]), self.records, MEAN, self.references
        )
        section = METRICS[name].section(**self.chosen[name])
        table, protocol = self._paths(name)
        return measure_metric(name, section, inputs, self.folder / "draw/manifest.json", table, protocol)

    def evaluate(self, num_bootstrap: int = 50) -> dict[str, Any]:
        """Bring together what is measured."""
        inputs = EvaluateInputs(
            self.draw,
            Evaluate(num_bootstrap=num_bootstrap),
            self.records,
            self.chunks["parquet"],
            self.folder / "draw/manifest.json",
            [self._paths(name) for name in self.measured()],
            chosen=list(self.chosen),
            models={"trained": "1" * 64, "untrained": "2" * 64},
        )
        return evaluate(inputs, self.folder / "metrics.json", self.folder / "prompts.parquet")

    def run(self) -> dict[str, Any]:
        """All three stages."""
        self.draw_all()
        for name in self.measured():
            self.measure_one(name)
        return self.evaluate()

    def with_draw(self, folder: Path, **options: Any) -> "Judged":
        """The same in another folder with other options of the draw section."""
        return replace(self, folder=folder, draw=Draw.model_validate({**self.draw.model_dump(), **options}))

    def _paths(self, name: str) -> tuple[Path, Path]:
        folder = self.folder / "measure"
        return folder / f"{name}.parquet", folder / f"{name}.protocol.json"
