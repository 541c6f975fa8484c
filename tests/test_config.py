"""Configuration: a mistake is found early and explained; runs extend runs."""

import shutil
from pathlib import Path
from typing import Annotated

import pytest
import yaml

from darkroom.components.base import ComponentOf, named_components
from darkroom.config import ConfigError, load_project, schema_text
from darkroom.config.load import merge
from darkroom.settings.base import Section
from darkroom.stages import component_names

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "config" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_run(folder: Path, name: str, **values: object) -> None:
    (folder / "config/runs" / f"{name}.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "runs/demo.yaml",
            "num_steps:",
            "num_step:",
            "demo.yaml: train.num_step: unknown key; did you mean 'num_steps'?",
        ),
        ("runs/demo.yaml", "dataset: demo", "dataset: dem", "no dataset 'dem' in"),
        ("runs/demo.yaml", "vae: demo-vae", "vae: demo-vea", "cache.vae: no vae 'demo-vea' in"),
        ("runs/demo.yaml", "vae: demo-vae", "vae: demo-clip", "'demo-clip' is a clip, not a vae"),
        ("runs/demo.yaml", "text_encoder: demo-text", "text_encoder: t5", "no text_encoder 't5'"),
        ("runs/demo.yaml", "step_px: 16", "step_px: 24", "72 would be"),
        ("runs/demo.yaml", "seed: 0", "seed: 0\nseed: 1", "stands twice"),
        ("datasets/demo.yaml", "num_scenes", "num_scene", "source.num_scene: unknown key"),
        (
            "datasets/demo.yaml",
            "pwatermark, max: 0.5",
            "pwatermark, max: low",
            "keep.0.max: input should be a finite number; it is 'low'",
        ),
        ("datasets/demo.yaml", "timeout_s: 4\n", "timeout_s: 4s\n", "download.timeout_s"),
        ("datasets/demo.yaml", "kind: demo", "kind: dmo", "'dmo'"),
    ],
)
def test_a_mistake_is_named_with_file_key_value_and_what_would_be_right(
    project_folder: Path, file: str, old: str, new: str, said: str
) -> None:
    edit(project_folder, file, old, new)
    with pytest.raises(ConfigError) as error:
        load_project("demo", project_folder)
    assert said in str(error.value).replace(f"{project_folder}/", "")


def test_a_wrong_key_in_a_list_is_answered_with_those_that_there_are(project_folder: Path) -> None:
    edit(project_folder, "runs/sdxl-novelai-tiny.yaml", "no_caption: zeros", '"null": zeros')
    known = "name, hidden_layer, max_tokens, padded, pooled, projected, no_caption"
    with pytest.raises(ConfigError, match=rf"cache\.text_encoders\.0\.null: unknown key; known: {known}"):
        load_project("sdxl-novelai-tiny", project_folder)


def test_settings_of_a_run_without_an_objective_are_as_they_were_before_there_was_one() -> None:
    from darkroom.stages import stage_settings

    train = stage_settings(load_project("demo", ROOT), "train")["train"]
    assert not {"objective", "learning_rate_decay", "warmup_shape"} & set(train)


def test_an_unknown_run_is_answered_with_the_nearest_one(project_folder: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        load_project("dmo", project_folder)


def test_a_run_takes_what_it_does_not_set_from_the_run_it_extends(project_folder: Path) -> None:
    write_run(project_folder, "longer", extends="demo", train={"num_steps": 700})
    longer, demo = load_project("longer", project_folder), load_project("demo", project_folder)
    assert longer.run.train.num_steps == 700
    assert longer.run.train.learning_rate == demo.run.train.learning_rate
    assert longer.run.model == demo.run.model


def test_a_cache_is_shared_by_runs_whose_dataset_buckets_and_encoders_agree(
    project_folder: Path,
) -> None:
    write_run(project_folder, "longer", extends="demo", train={"num_steps": 700})
    write_run(project_folder, "larger", extends="longer", bucket={"resolution_px": 80})
    write_run(project_folder, "larger-longer", extends="larger", train={"num_steps": 900})
    names = ("demo", "longer", "larger", "larger-longer")
    demo, longer, larger, larger_longer = (load_project(name, project_folder).cache for name in names)
    assert demo == longer != larger == larger_longer


def test_a_mistake_in_the_extended_run_is_blamed_on_its_own_file(project_folder: Path) -> None:
    write_run(project_folder, "longer", extends="demo", train={"num_steps": 700})
    edit(project_folder, "runs/demo.yaml", "ema_decay: ", "ema_decay: 1")
    with pytest.raises(ConfigError, match=r"runs/demo\.yaml: train\.ema_decay"):
        load_project("longer", project_folder)


def test_runs_that_extend_each_other_are_refused(project_folder: Path) -> None:
    write_run(project_folder, "a", extends="b")
    write_run(project_folder, "b", extends="a")
    with pytest.raises(ConfigError, match="again"):
        load_project("a", project_folder)


def test_merge_goes_key_by_key_and_replaces_lists_whole() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [9]}}) == {"a": {"b": 1, "c": [9]}, "d": 3}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_the_committed_schema_is_in_step_with_the_models() -> None:
    assert (ROOT / "config/schema.json").read_text() == schema_text(), "run: make schema"


def test_every_option_of_the_schema_says_what_it_is_or_has_a_telling_name() -> None:
    import json

    schema = json.loads(schema_text())
    download = schema["properties"]["dataset"]["$defs"]["Download"]["properties"]
    assert all("description" in option for option in download.values())
    assert schema["properties"]["run"]["additionalProperties"] is False


MMDIT = "model:\n  num_blocks: 6\n  num_heads: 3\n  head_dim: 64\n  patch_size: 1\n"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("family: unet", "family must be one of mmdit, unet-sd, unet-sdxl, sd3"),
        ("family: unet-sd", "model: give either pretrained"),
        ("{family: sd3, params: {}, pretrained: base}", "model: give either pretrained"),
        (
            "{family: unet-sd, params: {block_out_channel: [32]}}",
            "UNet2DConditionModel has no argument 'block_out_channel'; did you mean 'block_out_channels'?",
        ),
        (
            "{family: sd3, params: {num_layer: 1}}",
            "SD3Transformer2DModel has no argument 'num_layer'; did you mean 'num_layers'?",
        ),
        ("{family: sd3, param: {}}", "model.param: unknown key; did you mean 'params'?"),
        (
            "{family: unet-sdxl, params: {}, lora: {targets: [to_qq]}}",
            "a unet-sdxl has no layer 'to_qq'; did you mean 'to_q'?",
        ),
        (
            "{num_blocks: 1, num_heads: 1, lora: {targets: [to_q]}}",
            "a mmdit has no layer 'to_q'",
        ),
    ],
)
def test_a_mistake_in_the_model_section_is_named(project_folder: Path, model: str, said: str) -> None:
    written = model if model.startswith("{") else f"{{{model}}}"
    edit(project_folder, "runs/demo.yaml", MMDIT, f"model: {written}\n")
    with pytest.raises(ConfigError) as error:
        load_project("demo", project_folder)
    assert said in str(error.value)


def test_a_model_of_another_family_replaces_the_extended_one_whole() -> None:
    base = {"model": {"num_blocks": 1, "num_heads": 1}, "seed": 1}
    assert merge(base, {"model": {"family": "sd3"}}) == {"model": {"family": "sd3"}, "seed": 1}
    assert merge(base, {"model": {"family": "mmdit"}})["model"]["num_blocks"] == 1


PARAMS = {"model": {"family": "unet-sd", "params": {"sample_size": 8}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache": {"text_encoders": [{"name": "demo-text"}]}}, "give either text_encoder (one) or text_encoders"),
        ({"cache": {"text_encoder": None}}, "give either text_encoder (one) or text_encoders"),
        (
            {"cache": {"text_encoder": None, "text_encoders": [{"name": "demo-txt"}]}},
            "no text_encoder 'demo-txt' in config/components.yaml; did you mean 'demo-text'?",
        ),
        ({"train": {"encoder_dropout": [0.1, 0.1]}}, "train.encoder_dropout: has 2 numbers for 1 text encoders"),
        ({"train": {"encoder_dropout": [1.1]}}, "train.encoder_dropout.0: input should be less"),
        (PARAMS, "cache.text_encoders: unet-sd reads 1 (CLIP), and 0 are listed"),
        (
            {**PARAMS, "cache": {"text_encoder": None, "text_encoders": [{"name": "demo-text"}]}},
            "cache.text_encoders.0.padded: unet-sd reads its CLIP with padded: true",
        ),
        (
            {**PARAMS, "cache": {"text_encoder": None, "text_encoders": [{"name": "demo-text", "padded": True}]}},
            "train.objective: diffusers' pipeline of a unet-sd draws diffusion models; write prediction: epsilon",
        ),
        ({"model": {"attention": "flash"}, "train": {"dtype": "float32"}}, "flash computes in bfloat16"),
        ({"model": {"pretrained": "demo-vae"}}, "model.pretrained: 'demo-vae' is a vae, not a model"),
    ],
)  # fmt: skip
def test_a_run_whose_sections_do_not_fit_together_is_refused_by_key(
    project_folder: Path, changes: dict[str, object], said: str
) -> None:
    write_run(project_folder, "other", extends="demo", **changes)
    with pytest.raises(ConfigError) as error:
        load_project("other", project_folder)
    assert said in str(error.value)


def test_options_added_later_leave_the_dumped_settings_as_they_were() -> None:
    model = load_project("demo", ROOT).run.model
    assert model.model_dump() == {
        "num_blocks": 6,
        "num_heads": 3,
        "head_dim": 64,
        "patch_size": 1,
        "mlp_ratio": 4.0,
    }
    assert model.model_copy(update={"mlp": "swiglu"}).model_dump()["mlp"] == "swiglu"


def test_every_component_that_the_configuration_names_is_found_by_one_walk() -> None:
    """Also those of sections to come: what depends on components asks for the marks, not for names of fields."""
    found = {
        name: [
            tuple(named[:3])
            for section in (project.run, project.dataset)
            for named in named_components(section)
        ]
        for name in ("demo", "pixelprose-sd3", "flux-tiny")
        for project in [load_project(name, ROOT)]
    }
    assert found["demo"] == [
        ("cache.vae", "demo-vae", "vae"),
        ("cache.text_encoder", "demo-text", "text_encoder"),
        *(
            (f"measure.{metric}.clip", "demo-clip", "clip")
            for metric in ("clip_score", "frechet_clip_distance", "kernel_clip_distance")
        ),
        ("scorers.clip_similarity.clip", "demo-clip", "clip"),
        ("scorers.watermark.model", "demo-watermark", "image_classifier"),
        ("scorers.clip_embedding.clip", "demo-clip", "clip"),
        ("recaption.captioner", "demo-captioner", "captioner"),
    ]
    assert ("model.pretrained", "sd3-medium", "model") in found["pixelprose-sd3"]
    assert ("cache.text_encoders", "demo-t5", "text_encoder") in found["flux-tiny"]

    class Inner(Section):
        judge: Annotated[str, ComponentOf("clip")] | None = None

    class Outer(Section):
        inner: tuple[Inner, ...] = (Inner(judge="a"), Inner(), Inner(judge="b"))

    assert [named.name for named in named_components(Outer())] == ["a", "b"]


@pytest.mark.parametrize("name", ["demo", "pixelprose-sd3", "dreambooth-sd14-tiny"])
def test_the_components_of_a_stage_are_those_of_its_sections(name: str) -> None:
    project = load_project(name, ROOT)
    encoding = {project.run.cache.vae, *(use.name for use in project.run.cache.encoders)}
    model = {project.run.model.pretrained} - {None}
    assert component_names(project, "cache") == sorted(encoding)
    assert component_names(project, "train") == sorted(encoding | model)
    judges = {getattr(metric, "clip", None) for metric in project.run.measure.chosen.values()} - {None}
    assert component_names(project, "measure") == sorted(judges) and judges
    assert component_names(project, "download") == component_names(project, "bucket") == []
