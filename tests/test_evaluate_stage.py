"""The evaluate stage, with drawers that know the answer and a CLIP that sees mean colours."""

import json

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image

from darkroom.config.run import Evaluate
from darkroom.demo.prompts import prompt_records
from darkroom.demo.render import render
from darkroom.demo.scenes import COLORS, Scene, Thing
from darkroom.evaluate import stage
from darkroom.evaluate.pictures import draw_all, load_prompts
from darkroom.evaluate.references import References, choose, read_references
from darkroom.store import write_table, write_tar

SETTINGS = Evaluate(
    prompts="demo",
    num_pictures_per_prompt=2,
    max_prompts=3,
    batch_size=8,
    clip="mean",
    num_reference_pictures=12,
    num_bootstrap=50,
    sampling={"width_px": 64, "height_px": 64},
)
SPOTS = {"left of": (0.25, 0.5), "right of": (0.75, 0.5), "above": (0.5, 0.25), "below": (0.5, 0.75)}
OTHER = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CORNERS = [(0.25, 0.25), (0.75, 0.75), (0.75, 0.25), (0.25, 0.75)]


class MeanColor:
    """A CLIP of sorts."""

    def encode_images(self, pictures):
        return np.stack([p.reshape(-1, 3).mean(axis=0) / 255 for p in pictures])

    def encode_texts(self, texts):
        return np.ones((len(texts), 3))


def scene_of(record) -> Scene:
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


def noise(prompts, _places):
    return np.random.default_rng(0).integers(0, 256, (len(prompts), 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def references(tmp_path) -> References:
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
        spans = write_tar(tmp_path / f"{part}.tar", members)
        table = pl.DataFrame(rows).with_columns(
            offset=pl.Series([spans[n][0] for n, _ in members]),
            size=pl.Series([spans[n][1] for n, _ in members]),
        )
        place = {"bucket_width": 60, "bucket_height": 60, "resized_width": 90, "resized_height": 60}
        place |= {"crop_left": 15, "crop_top": 0}
        bucket = table.select("uid", "row").with_columns(**{k: pl.lit(v) for k, v in place.items()})
        write_table(tmp_path / f"{part}.parquet", table)
        write_table(tmp_path / f"{part}.buckets.parquet", bucket)
        tables.append(tmp_path / f"{part}.parquet")
        tars.append(tmp_path / f"{part}.tar")
        buckets.append(tmp_path / f"{part}.buckets.parquet")
    return References(tables, tars, buckets)


@pytest.fixture
def evaluated(tmp_path, references, monkeypatch):
    drawers = {"trained": perfect, "untrained": noise}
    monkeypatch.setattr(stage, "load_drawer", lambda model, *_: drawers[model.name])
    models = {}
    for name in drawers:
        models[name] = tmp_path / name
        models[name].mkdir()
        (models[name] / "weights").write_text(name)
    out = tmp_path / "out"
    identity = {"name": "mean", "sha256": "0" * 64, "resize": "none"}

    def run():
        return stage.evaluate(
            models, SETTINGS, MeanColor(), identity, references,
            out / "metrics.json", out / "prompts.parquet", out / "pictures", tmp_path / "work",
        )  # fmt: skip

    return run, out


def test_a_model_that_draws_what_is_asked_for_scores_one_and_noise_scores_zero(evaluated):
    run, out = evaluated
    counts = run()
    metrics = json.loads((out / "metrics.json").read_text())
    assert counts["prompts"] == 18
    assert counts["pictures"] == {"trained": 36, "untrained": 36}
    assert metrics["trained"]["geneval"]["overall"] == 1
    assert metrics["untrained"]["geneval"]["overall"] == 0
    gap = metrics["difference"]["geneval"]
    assert (gap["overall"], gap["overall_low"], gap["overall_high"]) == (1, 1, 1)
    assert metrics["protocol"]["prompts"]["number"] == 18
    assert "12 real, 36 generated" in metrics["protocol"]["frechet_clip_distance"]


def test_pictures_lie_in_genevals_layout_and_each_has_its_row(evaluated):
    run, out = evaluated
    run()
    table = pl.read_parquet(out / "prompts.parquet")
    assert table.height == 72
    for row in table.iter_rows(named=True):
        assert Image.open(out / "pictures" / row["path"]).size == (64, 64)
        assert json.loads(row["detections"]) or not row["correct"]
        assert (row["reason"] == "") == row["correct"]
    record = json.loads((out / "pictures/trained/00000/metadata.jsonl").read_text())
    assert record == prompt_records()[0]
    paired = table.filter(pl.col("model") == "trained")["seed"].to_list()
    assert paired == table.filter(pl.col("model") == "untrained")["seed"].to_list()
    assert len(set(paired)) == 36


def test_a_second_evaluation_gives_the_same_bytes_and_draws_nothing(evaluated, monkeypatch):
    run, out = evaluated
    run()
    names = ("metrics.json", "prompts.parquet")
    first = [(out / name).read_bytes() for name in names]

    def refuse(*_):
        raise AssertionError("loaded a model although every picture was there")

    monkeypatch.setattr(stage, "load_drawer", refuse)
    run()
    assert [(out / name).read_bytes() for name in names] == first


def test_an_interrupted_drawing_goes_on_with_whole_groups(tmp_path):
    records = load_prompts(SETTINGS)
    calls = []

    def breaks(prompts, places):
        calls.append(places)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return noise(prompts, places)

    with pytest.raises(KeyboardInterrupt):
        draw_all(tmp_path, "m", records, lambda: breaks, SETTINGS)
    assert len(list(tmp_path.glob("0*"))) == 8  # two groups of batch_size / pictures = 4 prompts
    (tmp_path / "00001/samples/0001.png").unlink()
    drawn = draw_all(tmp_path, "m", records, lambda: breaks, SETTINGS)
    assert drawn == 36 - 8
    assert calls[3] == calls[0] and calls[4] == calls[2]


def test_pictures_of_another_size_than_asked_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"uint8 \(8, 64, 64, 3\) was asked for"):
        draw_all(tmp_path, "m", load_prompts(SETTINGS), lambda: lambda p, _: noise(p, _)[:, :32], SETTINGS)


def test_max_prompts_takes_the_first_of_each_task():
    records = load_prompts(SETTINGS)
    assert [r["tag"] for r in records].count("position") == 3
    assert records[0] == prompt_records()[0]
    assert len(load_prompts(SETTINGS.model_copy(update={"max_prompts": 0}))) == len(prompt_records())


def test_references_are_the_first_by_uid_and_cropped_like_training(references):
    chosen = choose(references, 5)
    assert chosen["uid"].to_list() == ["000", "001", "010", "011", "020"]
    pictures = list(read_references(references, chosen))
    assert all(p.shape == (60, 60, 3) for p in pictures)
    assert all(p.std(axis=(0, 1)).max() < 3 for p in pictures)  # the black edge is gone


def test_references_without_a_bucket_are_not_taken(references):
    empty = pl.read_parquet(references.buckets[0]).with_columns(bucket_width=pl.lit(None, pl.Int32))
    write_table(references.buckets[0], empty)
    assert choose(references, 100).height == 10
    with pytest.raises(ValueError, match="one of each for every part"):
        References(references.tables, references.tars[:1], references.buckets)
