"""Features of pictures are computed once for all metrics that look alike, and kept; no number depends on it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import TinyProject
from drawn_pictures import write_references
from hypothesis import given
from hypothesis import strategies as st
from test_models_clip import saved  # noqa: F401 - a fixture
from test_preference import RECORDS
from test_text_rendering import Drawn
from tiny_features import pictures, write_inception, write_pictures
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.components.base import CROP, PAD, Component
from darkroom.components.inception import Inception
from darkroom.metrics.base import Inputs, Measured
from darkroom.metrics.embeddings import asked_features
from darkroom.metrics.extracted import (
    REAL,
    Asked,
    Extracted,
    Features,
    computed_before,
    extract,
    joined,
    read_extracted,
    write_extracted,
)
from darkroom.metrics.extractor import Encoder, Extractor
from darkroom.metrics.table import METRICS

RUN = "config/runs/demo.yaml"
OF_INCEPTION = ("fid", "fid_infinity", "kid", "mifid")
ON_CLIP = ("clip_score", "pickscore", "hps_v2_1", "frechet_clip_distance", "kernel_clip_distance", "cmmd")


@pytest.fixture
def inception(tmp_path: Path) -> Component:
    return write_inception(tmp_path / "inception")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each pass of an Inception has seen."""
    batches: list[int] = []
    encode_images = Inception.encode_images

    def counting(self: Inception, found: Any) -> Any:
        batches.append(len(found))
        return encode_images(self, found)

    monkeypatch.setattr(Inception, "encode_images", counting)
    return batches


def measured(name: str, component: Component, inputs: Inputs, **options: Any) -> Measured:
    section = METRICS[name].section(**{component.kind: "net"}, batch_size=3, **options)
    return METRICS[name].measure(section, replace(inputs, components={"net": component}))


def inputs_of(tmp_path: Path, features: Features) -> Inputs:
    return Inputs(
        {"trained": Drawn(pictures(5, 1))}, RECORDS, {}, write_references(tmp_path / "real"), features
    )


def kept_in(folder: Path) -> Features:
    """A file for everything that is asked."""
    return Features(lambda asked: folder / f"{asked.extractor.resize or CROP}.{asked.of}.safetensors")


def test_metrics_share_what_one_pass_has_seen(inception: Component, seen: list[int], tmp_path: Path) -> None:
    together = inputs_of(tmp_path, Features())
    found = {name: measured(name, inception, together, num_reference_pictures=4) for name in OF_INCEPTION}
    assert seen == [3, 1, 3, 2]
    for name in OF_INCEPTION:
        alone = measured(name, inception, replace(together, features=Features()), num_reference_pictures=4)
        assert alone.table.equals(found[name].table) and alone.protocol == found[name].protocol, name
    assert len(seen) == 4 * (1 + len(OF_INCEPTION))
    measured("fid", inception, together, num_reference_pictures=4, resize="clean")
    measured("fid", inception, together, num_reference_pictures=3)
    assert len(seen) == 4 * (1 + len(OF_INCEPTION)) + 4 + 1


def test_numbers_of_kept_features_are_those_of_the_network_to_the_bit_and_it_is_not_loaded(
    saved: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = Component(kind="clip", path=str(saved))
    inputs = replace(inputs_of(tmp_path, Features()), drawn={"trained": Drawn(pictures(3, 1))})
    alone = {name: measured(name, clip, replace(inputs, features=Features())) for name in ON_CLIP}
    for _ in range(2):
        for name in ON_CLIP:
            found = measured(name, clip, replace(inputs, features=kept_in(tmp_path / "kept")))
            assert found.table.equals(alone[name].table), name
            assert json.dumps(found.protocol, sort_keys=True) == json.dumps(
                alone[name].protocol, sort_keys=True
            )
        files = sorted(path.name for path in (tmp_path / "kept").iterdir())
        # HPSv2.1 sees pictures otherwise, and no real ones.
        assert files == [
            f"{PAD}.trained.safetensors",
            f"{CROP}.real.safetensors",
            f"{CROP}.trained.safetensors",
        ]
        # The second time prompts alone are encoded, and distances load nothing.
        monkeypatch.setattr("darkroom.metrics.extracted.encode", no_pictures)
    monkeypatch.setattr(Extractor, "load", no_pictures)
    measured("cmmd", clip, replace(inputs, features=kept_in(tmp_path / "kept")))


def no_pictures(*_: Any) -> Any:
    raise AssertionError("a network is asked though its features are kept")


def test_features_have_the_bytes_of_their_numbers_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    encoder = Encoder("inception", {"name": "a", "sha256": "0"}, "words", "tf1")
    for name in ("a", "b"):
        write_extracted(tmp_path / name, Extracted(features, encoder))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = read_extracted(tmp_path / "a")
    assert found.encoder == encoder and found.features.dtype == np.float32
    assert np.array_equal(found.values, features.astype(np.float64))
    (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=f"{tmp_path}/a: no features of pictures .*; remove it, and they are"
    ):
        read_extracted(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ValueError, match=f"{tmp_path}/b: no features of pictures"):
        read_extracted(tmp_path / "b")


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 60))
def test_jobs_are_cut_between_forward_passes_and_miss_no_picture(
    number: int, batch_size: int, per_job: int
) -> None:
    spans = Asked(Extractor("clip", "net", batch_size), "trained").spans(number, per_job)
    assert [place for span in spans for place in span] == list(range(number))
    assert all(len(span) % batch_size == 0 for span in spans[:-1])
    assert all(len(span) <= max(per_job, batch_size) for span in spans)


def test_features_of_several_jobs_are_those_of_one_to_the_bit(
    saved: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    clip = Component(kind="clip", path=str(saved))
    asked = [Asked(Extractor("clip", "net", 3), REAL, 30)]
    network = asked[0].extractor.load(clip)
    real = write_references(tmp_path)
    whole = extract(network, real.pictures(30), 3)
    # Thirty are asked for, and twenty are there: what jobs there are is known before how many pictures there are.
    assert len(whole.features) == 20
    paths = [tmp_path / "other.real.0-30.safetensors"]
    for span in asked[0].spans(30, 13):
        paths.append(tmp_path / f"{asked[0].name(clip)}.{span.start}-{span.stop}.safetensors")
        of_job = extract(network, real.pictures(30, slice(span.start, span.stop)), 3)
        write_extracted(paths[-1], of_job)
    assert [path.name.split(".")[2] for path in paths[1:]] == ["0-12", "12-24", "24-30"]
    computed = computed_before(asked, {"net": clip}, paths)
    assert computed == {asked[0]: paths[1:]}
    features = Features(computed=computed).get(asked[0], clip, no_pictures)
    assert np.array_equal(features.features, whole.features) and features.encoder == whole.encoder
    with pytest.raises(ValueError, match=r"no file of the features [0-9a-f]{16}\.trained"):
        computed_before([replace(asked[0], of="trained")], {"net": clip}, paths)
    write_extracted(paths[2], replace(whole, encoder=replace(whole.encoder, kind="dinov2")))
    with pytest.raises(ValueError, match=f"{paths[2]}: was made by another network than {paths[1].name}"):
        joined(paths[1:])


def asked(name: str, **options: Any) -> list[Asked]:
    metric = METRICS[name]
    return asked_features(metric.section(**options), metric.references, ["trained"])


def test_what_changes_features_and_nothing_else_changes_what_is_asked() -> None:
    fid = asked("fid", inception="net")
    assert (
        fid
        == asked("kid", inception="net", subset_size=7)
        == asked("recall", inception="net", num_neighbours=2)
    )
    assert fid == [
        Asked(Extractor("inception", "net", 64, "tf1"), "trained"),
        Asked(Extractor("inception", "net", 64, "tf1"), REAL, 10_000),
    ]
    assert asked("clip_score", clip="a") == asked("frechet_clip_distance", clip="a")[:1]
    assert asked("hps_v2_1", clip="a") != asked("pickscore", clip="a") == asked("clip_score", clip="a")
    assert asked("geneval", detector="contour") == []
    component = Component(kind="inception", path="a")
    digests = [
        one.digest(of)
        for options in ({}, {"resize": "clean"}, {"batch_size": 3}, {"num_reference_pictures": 9})
        for of in (component, Component(kind="inception", path="b"))
        for one in asked("fid", inception="net", **options)
    ]
    # The number of real pictures is nothing to those that are drawn.
    assert len(set(digests)) == len(digests) - 2


def test_darkroom_measure_keeps_features_of_real_pictures_for_the_next_folder(
    inception: Component, seen: list[int], tmp_path: Path
) -> None:
    real = write_pictures(tmp_path / "real", pictures(7, 0))
    folders = [write_pictures(tmp_path / f"drawn-{seed}", pictures(4, seed)) for seed in (1, 2)]
    options = ["--reference", real, "--component", f"inception={inception.path}", "--keep", tmp_path / "kept"]

    def scores(folder: Path, *more: object) -> str:
        arguments = ["measure", folder, "--metrics", "fid,kid", *more]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result.output

    first = scores(folders[0], *options)
    assert sum(seen) == 7 + 4
    assert scores(folders[0], *options) == first == scores(folders[0], *options[:4])
    assert sum(seen) == 2 * (7 + 4)
    assert scores(folders[1], *options) != first and sum(seen) == 2 * (7 + 4) + 4
    (real / "000.png").unlink()
    scores(folders[1], *options)
    assert sum(seen) == 2 * (7 + 4) + 4 + 6


@pytest.mark.slow
def test_a_run_computes_the_features_of_each_set_of_pictures_once(changeable: TinyProject) -> None:
    project = changeable
    drawn = sorted((project.folder / "results/runs/demo/features").iterdir())
    real = sorted(project.results("cache").parent.glob("features/*"))
    # CLIPScore and both distances, on one CLIP.
    assert [path.name.split(".")[1] for path in drawn] == ["trained", "untrained"] and len(real) == 1
    assert project.planned() == set()
    follow = {"measure_manifest", "evaluate_run", "report_run"}
    cmmd = {"clip": "demo-clip", "num_reference_pictures": 1000}
    number = project.read(RUN)["measure"]["frechet_clip_distance"]["num_reference_pictures"]
    project.edit(RUN, {"measure": {"cmmd": {**cmmd, "num_reference_pictures": number}}})
    assert project.planned() == {"measure_metric", *follow}
    project.edit(RUN, {"measure": {"cmmd": {**cmmd, "num_reference_pictures": number - 1}}})
    assert project.planned() == {"measure_metric", "measure_references", *follow}
    # As after a kill: what one network has seen is there.
    times = {path: path.stat().st_mtime_ns for path in (*drawn, *real)}
    drawn[0].unlink()
    project.run("snakemake", "measure")
    kept = {path: path.stat().st_mtime_ns for path in (*drawn[1:], *real)}
    assert kept == {path: times[path] for path in kept} and drawn[0].is_file()
    table = pl.read_parquet(project.results("measure") / "cmmd.parquet")
    assert table.height == 2
    # Several jobs, as many as it takes.
    options = {**cmmd, "num_reference_pictures": 6, "batch_size": 2}
    project.edit(RUN, {"measure": {"cmmd": options, "pictures_per_job": 4}})
    project.run("snakemake", "measure")
    of_cmmd = sorted(project.results("cache").parent.glob("features/*.[04]-[46].safetensors"))
    spans = [path.name.split(".")[2] for path in of_cmmd]
    assert spans == ["0-4", "4-6"] and [len(read_extracted(path).features) for path in of_cmmd] == [4, 2]
    assert project.planned() == {"evaluate_run", "report_run"}
    # Another run on the same pictures compares with what is there.
    project.write("config/runs/other.yaml", {"extends": "demo", "draw": {"seed": 7}})
    planned = project.planned("measure", "--config", "run=other")
    assert "measure_features" in planned and "measure_references" not in planned
