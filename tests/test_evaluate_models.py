"""The evaluate stage with a real pipeline and a real CLIP, tiny and random."""

import json

import numpy as np
import polars as pl
import pytest
from test_components import write_clip
from test_evaluate_stage import references  # noqa: F401 - a fixture
from test_sample_pipeline import build

from darkroom.config.components import Component
from darkroom.config.run import Evaluate, Sampling
from darkroom.evaluate.stage import clip_identity, evaluate, load_drawer
from darkroom.models.components import load_clip
from darkroom.sample.draw import draw, picture_seed
from darkroom.sample.export import export_pipeline, load_pipeline, save_part

SETTINGS = Evaluate(
    prompts="demo",
    num_pictures_per_prompt=2,
    max_prompts=1,
    seed=3,
    batch_size=4,
    clip="tiny",
    num_reference_pictures=10,
    num_bootstrap=10,
    sampling=Sampling(num_inference_steps=2, guidance_scale=2.0, width_px=32, height_px=24),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    trained = build(folder / "components", seed=0)
    export_pipeline(trained, folder / "model")
    other = build(folder / "components", seed=5)
    save_part(other.transformer, folder / "untrained" / "transformer")
    return {"trained": folder / "model", "untrained": folder / "untrained"}


def test_a_drawer_seeds_each_picture_by_its_place(models):
    drawer = load_drawer(models["trained"], models["trained"], SETTINGS)
    places = [(4, 0), (4, 1), (7, 0)]
    prompts = ["a red circle", "a red circle", "a triangle"]
    pictures = drawer(prompts, places)
    seeds = [picture_seed(3, prompt, picture) for prompt, picture in places]
    expected = draw(load_pipeline(models["trained"]), prompts, seeds, SETTINGS.sampling, batch_size=4)
    assert np.array_equal(pictures, expected)
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_transformer_alone_borrows_the_rest_of_the_trained_pipeline(models):
    places = [(0, 0)]
    ours = load_drawer(models["trained"], models["trained"], SETTINGS)(["a triangle"], places)
    theirs = load_drawer(models["untrained"], models["trained"], SETTINGS)(["a triangle"], places)
    swapped = load_pipeline(models["trained"], transformer=models["untrained"] / "transformer")
    expected = draw(swapped, ["a triangle"], [picture_seed(3, 0, 0)], SETTINGS.sampling, batch_size=4)
    assert np.array_equal(theirs, expected) and not np.array_equal(theirs, ours)


def test_the_stage_runs_on_real_models_and_records_the_clip(models, references, tmp_path):  # noqa: F811
    component = Component(kind="clip", path=str(write_clip(tmp_path / "clip")))
    clip = load_clip(component)
    identity = clip_identity("tiny", component, clip)
    out = tmp_path / "out"
    counts = evaluate(
        models, SETTINGS, clip, identity, references,
        out / "metrics.json", out / "prompts.parquet", out / "pictures", tmp_path / "work",
    )  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert counts["pictures"] == {"trained": 12, "untrained": 12}
    assert metrics["protocol"]["clip"] == identity
    assert metrics["protocol"]["clip"]["resize"] == "shorter side bicubic to 32 px, centre crop"
    for name in ("frechet_clip_distance", "kernel_clip_distance", "clip_score"):
        assert np.isfinite(metrics["trained"][name])
        gap = metrics["trained"][name] - metrics["untrained"][name]
        assert metrics["difference"][name] == pytest.approx(gap, abs=2e-6)
    scores = pl.read_parquet(out / "prompts.parquet")["clip_score"]
    assert scores.len() == 24 and scores.is_between(0, 100).all()
