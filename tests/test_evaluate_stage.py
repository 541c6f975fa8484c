"""Measure and evaluate, on pictures that are right or noise, with a CLIP that sees mean colours."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from drawn_pictures import MEASURE, Judged, mean_clip, noise, perfect, write_references
from test_components import write_clip
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.components.base import Component
from darkroom.config.run import Measure
from darkroom.evaluate.compare import compare
from darkroom.metrics import clip_score, extractor
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.clip_score import ClipScore
from darkroom.metrics.references import References, choose, read_references
from darkroom.metrics.table import METRICS
from darkroom.report.results import read_failures, read_pictures, read_results
from darkroom.report.table import results_markdown
from darkroom.settings.base import Section
from darkroom.store import write_table


@pytest.fixture
def references(tmp_path) -> References:
    (tmp_path / "real").mkdir()
    return write_references(tmp_path / "real")


@pytest.fixture
def judged(tmp_path, references, monkeypatch) -> Judged:
    monkeypatch.setitem(extractor._LOADERS, "clip", mean_clip)
    return Judged(tmp_path / "run", references)


def metrics_of(judged: Judged) -> dict:
    return json.loads((judged.folder / "metrics.json").read_text())


def test_a_model_that_draws_what_is_asked_for_scores_one_and_noise_scores_zero(judged):
    counts = judged.run()
    metrics = metrics_of(judged)
    assert counts["prompts"] == 18 and counts["metrics"] == 4
    assert counts["pictures"] == {"trained": 36, "untrained": 36}
    assert metrics["trained"]["geneval"]["overall"] == 1
    assert metrics["untrained"]["geneval"]["overall"] == 0
    gap = metrics["difference"]["geneval"]
    assert (gap["overall"], gap["overall_low"], gap["overall_high"]) == (1, 1, 1)
    assert metrics["protocol"]["prompts"]["number"] == 18
    assert "12 real, 36 generated" in metrics["protocol"]["frechet_clip_distance"]["definition"]
    assert metrics["protocol"]["geneval"]["self_test"] == 1
    for name in ("clip_score", "frechet_clip_distance", "kernel_clip_distance"):
        gap = metrics["trained"][name] - metrics["untrained"][name]
        assert metrics["difference"][name] == pytest.approx(gap, abs=2e-6)


def test_each_picture_has_its_row_with_every_metrics_columns(judged):
    judged.run()
    table = pl.read_parquet(judged.folder / "prompts.parquet")
    assert table.height == 72
    for row in table.iter_rows(named=True):
        assert json.loads(row["detections"]) or not row["correct"]
        assert (row["reason"] == "") == row["correct"]
    assert table["clip_score"].is_between(0, 100).all()
    paired = [table.filter(pl.col("model") == m)["seed"].to_list() for m in ("trained", "untrained")]
    assert paired[0] == paired[1] and len(set(paired[0])) == 36


def test_scores_do_not_depend_on_the_chunks_and_a_second_evaluation_gives_the_same_bytes(judged, tmp_path):
    judged.run()
    first = [(judged.folder / name).read_bytes() for name in ("metrics.json", "prompts.parquet")]
    judged.evaluate()
    assert [(judged.folder / name).read_bytes() for name in ("metrics.json", "prompts.parquet")] == first
    other = judged.with_draw(tmp_path / "other", prompts_per_chunk=4)
    other.run()
    assert (other.folder / "metrics.json").read_bytes() == first[0]


def test_a_metric_of_other_pictures_is_refused(judged):
    judged.run()
    judged.draw_all(untrained=perfect)
    for name in judged.measured()[1:]:
        judged.measure_one(name)
    with pytest.raises(
        ValueError, match=r"geneval was measured on other pictures .* run `snakemake measure`"
    ):
        judged.evaluate()


def test_a_metric_that_lacks_a_picture_is_refused(judged):
    judged.run()
    path = judged.folder / "measure/clip_score.parquet"
    write_table(path, pl.read_parquet(path).head(71), sort_by=None)
    with pytest.raises(ValueError, match="clip_score has 71 values for 72 pictures"):
        judged.evaluate()


def test_of_prompts_of_ones_own_geneval_says_nothing_anywhere_but_why(judged, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("".join(f"{text}\n" for text in ("a photo of a circle", "a photo of a square")))

    def white(prompts, places):
        return np.full((len(prompts), 64, 64, 3), 250, np.uint8)

    mine = judged.with_draw(tmp_path / "own", prompts={"kind": "file", "path": str(own)})
    mine.draw = type(mine.draw).model_validate(mine.draw.model_dump(warnings=False))
    mine.draw_all(trained=white, untrained=white)
    assert mine.measured() == ["clip_score", "frechet_clip_distance", "kernel_clip_distance"]
    for name in mine.measured():
        mine.measure_one(name)
    assert mine.evaluate()["not_measured"] == 1
    metrics = metrics_of(mine)
    assert "GenEval does not apply" in metrics["not_measured"]["geneval"]
    for part in ("trained", "untrained", "difference", "protocol"):
        assert "geneval" not in metrics[part]
    table = pl.read_parquet(mine.folder / "prompts.parquet")
    assert not {"correct", "reason", "detections"} & set(table.columns)
    assert "GenEval" not in results_markdown(metrics) and "CLIPScore" in results_markdown(metrics)
    results = read_results(mine.folder / "metrics.json")
    assert results["by_task"] == [] and results["headline"]["name"] == "CLIPScore"
    assert results["silent"] == [metrics["not_measured"]["geneval"]]
    assert read_failures(mine.folder / "prompts.parquet") == []
    (task,) = read_pictures(mine.folder / "prompts.parquet", mine.folder / "draw/pictures", 4)
    assert task["name"] == "Prompts" and task["prompts"][0]["models"][0]["right"] is None


def test_prompts_that_ask_for_nothing_are_not_judged_among_others_that_do(judged, tmp_path):
    told = {"tag": "single_object", "include": [{"class": "circle", "count": 1}]}
    records = [{**told, "prompt": "a photo of a circle"}, {**told, "include": [], "prompt": "a square"}]
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    mixed = judged.with_draw(tmp_path / "mixed", prompts={"kind": "geneval", "path": str(path)})
    mixed.measure = {"geneval": MEASURE["geneval"]}
    mixed.draw_all(trained=lambda prompts, _: perfect(["a photo of a circle"] * len(prompts), _))
    assert mixed.measure_one("geneval") == {"correct": 2, "not_judged": 4}
    mixed.evaluate()
    assert metrics_of(mixed)["trained"]["geneval"]["single_object"] == 1
    assert metrics_of(mixed)["untrained"]["geneval"]["overall"] == 0


def as_run(judged: Judged, root, name: str) -> None:
    folder = root / "results/runs" / name / "evaluate"
    folder.mkdir(parents=True)
    for file in ("metrics.json", "prompts.parquet"):
        shutil.copy(judged.folder / file, folder)


def test_two_runs_are_compared_by_prompt_and_unequal_protocols_are_refused(judged, tmp_path, monkeypatch):
    judged.run()
    as_run(judged, tmp_path, "demo")
    better = metrics_of(judged)["trained"]
    worse = judged.with_draw(tmp_path / "worse")
    worse.draw_all(trained=noise)
    for name in worse.measured():
        worse.measure_one(name)
    worse.evaluate()
    as_run(worse, tmp_path, "longer")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["compare", "demo", "longer"])
    assert result.exit_code == 0, result.output
    rows = dict(line.strip("| ").split(" | ", 1) for line in result.output.splitlines()[2:])
    assert rows["GenEval, overall"] == "1.00 | 0.00 | -1.00 (-1.00 to -1.00)"
    assert rows["CLIPScore"].startswith(f"{better['clip_score']:.1f} | ")
    assert rows["Fréchet distance on CLIP features"].startswith(f"{better['frechet_clip_distance']:.3f} | ")
    path = tmp_path / "results/runs/longer/evaluate/metrics.json"
    body = json.loads(path.read_text())
    body["protocol"]["sampling"]["guidance_scale"] = 7.0
    path.write_text(json.dumps(body))
    refused = CliRunner().invoke(app, ["compare", "demo", "longer"])
    assert refused.exit_code == 2
    told = " ".join(refused.output.replace("│", " ").split())
    assert "protocol.sampling.guidance_scale is 5.0 in results/runs/demo/evaluate and 7.0 in" in told
    with pytest.raises(ValueError, match=r"metrics\.json: missing; snakemake evaluate makes it"):
        compare({"nowhere": tmp_path / "nowhere", "here": tmp_path})


class Brightness(Section):
    """How bright pictures are."""

    scale: float = 1.0


def measure_brightness(section: Brightness, inputs: Inputs) -> Measured:
    tables = []
    for drawn in inputs.drawn.values():
        values = [float(picture.mean()) * section.scale for picture in drawn.pictures()]
        table = drawn.table().select("model", "prompt_index", "picture")
        tables.append(table.with_columns(brightness=pl.Series(values)))
    return Measured(pl.concat(tables), {"definition": f"mean of all channels x {section.scale}"})


def test_a_new_metric_is_one_spec_and_shows_everywhere_without_drawing_again(judged, monkeypatch):
    judged.run()
    before = {path: path.stat().st_mtime_ns for path in (judged.folder / "draw").rglob("*")}
    spec = Metric(
        "brightness", Brightness, measure_brightness, "Brightness", "higher", 3, "mean", "brightness"
    )
    monkeypatch.setitem(METRICS, spec.name, spec)
    judged.measure = {**MEASURE, "brightness": {"scale": 2.0}}
    judged.measure_one("brightness")
    judged.evaluate()
    metrics = metrics_of(judged)
    assert metrics["trained"]["brightness_low"] < metrics["trained"]["brightness"]
    assert metrics["protocol"]["brightness"]["definition"] == "mean of all channels x 2.0"
    row = f"| Brightness | {metrics['trained']['brightness']:.3f} |"
    assert row in results_markdown(metrics)
    assert read_results(judged.folder / "metrics.json")["numbers"][-1]["sense"] == "higher is better"
    assert "brightness" in pl.read_parquet_schema(judged.folder / "prompts.parquet")
    assert {path: path.stat().st_mtime_ns for path in (judged.folder / "draw").rglob("*")} == before


def test_the_nearest_real_picture_has_an_interval_and_its_network_in_its_name(judged):
    on = {"clip": "mean", "num_reference_pictures": 12}
    judged.measure = {"nearest_real": on, "coverage": {**on, "num_neighbours": 3}}
    judged.run()
    metrics = metrics_of(judged)
    trained = metrics["trained"]
    assert 0 < trained["nearest_real_low"] < trained["nearest_real"] < trained["nearest_real_high"] <= 1
    assert (
        f"| Cosine to the nearest real picture (clip) | {trained['nearest_real']:.3f} |"
        in results_markdown(metrics)
    )
    assert f"| Coverage (clip) | {trained['coverage']:.3f} |" in results_markdown(metrics)
    assert "nearest_real_picture" in pl.read_parquet_schema(judged.folder / "prompts.parquet")
    assert "12 real" in metrics["protocol"]["nearest_real"]["definition"]


def test_the_configuration_knows_the_metrics_of_the_table_and_no_others():
    chosen = Measure.model_validate({"kernel_clip_distance": {"clip": "x"}, "geneval": None}).chosen
    assert list(chosen) == ["kernel_clip_distance"]
    with pytest.raises(ValueError, match="names no metric; write one or more of geneval, clip_score"):
        Measure.model_validate({"geneval": None})
    with pytest.raises(ValueError, match="Extra inputs"):
        Measure.model_validate({"clip_scores": {"clip": "x"}})


def test_a_real_clip_scores_and_its_protocol_tells_it(tmp_path, references):
    judged = Judged(tmp_path / "run", references)
    judged.draw_all()
    from darkroom.store.drawn import drawn_by_model

    component = Component(kind="clip", path=str(write_clip(tmp_path / "clip")))
    inputs = Inputs(
        drawn_by_model(judged.chunks["parquet"], judged.chunks["tar"]), judged.records, {"tiny": component}
    )
    measured = clip_score.measure(ClipScore(clip="tiny"), inputs)
    assert measured.table["clip_score"].is_between(0, 100).all() and measured.table.height == 72
    assert measured.protocol["clip"]["resize"] == "shorter side bicubic to 32 px, centre crop"
    assert len(measured.protocol["clip"]["sha256"]) == 64


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
