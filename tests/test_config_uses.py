"""One walk over the configuration finds every component that it names."""

import json
from pathlib import Path
from typing import Annotated

import pytest

from darkroom.components.base import ComponentOf, Named, named_components
from darkroom.config import ConfigError, load_project
from darkroom.settings.base import Section
from darkroom.stages import STAGES, component_names, stage_settings
from darkroom.store import in_key_order

ROOT = Path(__file__).parents[1]


class Inner(Section):
    clip: Annotated[str, ComponentOf("clip")]


class Outer(Section):
    vae: Annotated[str | None, ComponentOf("vae")] = None
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    text: str = "demo-vae"


def test_a_marked_option_is_found_wherever_it_stands_and_null_names_none() -> None:
    section = Outer(vae="v", inner=Inner(clip="a"), many=(Inner(clip="b"), Inner(clip="c")))
    assert list(named_components(section, "x")) == [
        Named("x.vae", "v", "vae"),
        Named("x.inner.clip", "a", "clip"),
        Named("x.many", "b", "clip"),  # of a list the list, which is what a layer of the configuration sets
        Named("x.many", "c", "clip"),
    ]
    assert list(named_components(Outer())) == []


def test_the_components_of_each_stage_follow_from_the_options() -> None:
    demo = load_project("demo", ROOT)
    assert [(named.key, named.name) for named in named_components(demo.run)] == [
        ("cache.vae", "demo-vae"),
        ("cache.text_encoder", "demo-text"),
        ("measure.clip_score.clip", "demo-clip"),
        ("measure.frechet_clip_distance.clip", "demo-clip"),
        ("measure.kernel_clip_distance.clip", "demo-clip"),
    ]
    found = {
        stage: component_names(demo, stage) for stage in ("recaption", "cache", "train", "draw", "measure")
    }
    encoders = ["demo-text", "demo-vae"]
    assert found == {
        "recaption": ["demo-captioner"], "cache": encoders, "train": encoders, "draw": [],
        "measure": ["demo-clip"],
    }  # fmt: skip
    assert component_names(load_project("dreambooth-sd14", ROOT), "train") == [
        "sd14",
        "sd14-text",
        "sd14-vae",
    ]


@pytest.mark.parametrize(
    ("metric", "name", "message"),
    [
        (
            "clip_score",
            "demo-clib",
            "no clip 'demo-clib' in config/components.yaml; did you mean 'demo-clip'?",
        ),
        ("kernel_clip_distance", "demo-vae", "'demo-vae' is a vae, not a clip"),
    ],
)
def test_a_metrics_component_that_is_not_there_is_refused_by_its_key(tmp_path, metric, name, message) -> None:
    import shutil

    shutil.copytree(ROOT / "config", tmp_path / "config")
    run = tmp_path / "config/runs/wrong.yaml"
    run.write_text(f"extends: demo\nmeasure: {{{metric}: {{clip: {name}}}}}\n")
    with pytest.raises(ConfigError) as refused:
        load_project("wrong", tmp_path)
    assert f"{run}: measure.{metric}.clip: {message}" in str(refused.value)


def test_an_unknown_metric_or_kind_of_prompts_is_refused_with_the_nearest(tmp_path) -> None:
    import shutil

    shutil.copytree(ROOT / "config", tmp_path / "config")
    run = tmp_path / "config/runs/wrong.yaml"
    for text, message in (
        (
            "measure: {clip_scor: {clip: demo-clip}}",
            "measure.clip_scor: unknown key; did you mean 'clip_score'?",
        ),
        (
            "measure: {clip_score: {clp: demo-clip}}",
            "measure.clip_score.clp: unknown key; did you mean 'clip'?",
        ),
        (
            "draw: {prompts: {kind: file, path: a.txt, pth: b}}",
            "draw.prompts.pth: unknown key; did you mean 'path'?",
        ),
        ("draw: {prompts: {kind: fil}}", "draw.prompts.kind: no kind 'fil'; did you mean 'file'?"),
        (
            "measure: {geneval: {detector: contours}}",
            "measure.geneval.detector: no object_detector 'contours' in config/components.yaml; did you mean"
            " 'contour'?",
        ),
    ):
        run.write_text(f"extends: demo\n{text}\n")
        with pytest.raises(ConfigError) as refused:
            load_project("wrong", tmp_path)
        assert message in str(refused.value)


def test_in_which_order_the_code_has_its_options_is_no_part_of_what_a_stage_is_made_with() -> None:
    project = load_project("demo", ROOT)
    for stage in STAGES:
        found = stage_settings(project, stage)
        # Snakemake, too, takes a mapping in another order for another one.
        assert json.dumps(found) == json.dumps(found, sort_keys=True), stage
    mixed = {"b": [{"d": 1, "c": 2}], "a": None}
    assert (
        json.dumps(in_key_order(mixed)) == '{"a": null, "b": [{"c": 2, "d": 1}]}'
        and in_key_order(mixed) == mixed
    )
