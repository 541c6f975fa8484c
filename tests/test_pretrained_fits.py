"""What pretrained components' own configurations say is honoured, or refused when the configuration is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.config import ConfigError, load_project

ROOT = Path(__file__).parents[1]
WEIGHTS = "diffusion_pytorch_model.safetensors"
# The sizes of the demo's VAE and of its text encoder, which is a CLIP in OpenAI's format.
CHANNELS, WIDTH, POSITIONS = 16, 128, 32
UNET = {"in_channels": CHANNELS, "out_channels": CHANNELS, "cross_attention_dim": WIDTH}
TIME = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose components are the demo's, `tower`, and `weights`, which the tests write."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")
    components = tmp_path / "config/components.yaml"
    components.write_text(
        f"{components.read_text()}\nweights: {{kind: model, path: weights}}\n"
        "tower: {kind: text_encoder, path: tower}\n"
    )
    return tmp_path


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_run(project: Path, **values: Any) -> None:
    body = yaml.safe_dump({"extends": "sd2-at-scale-256-tiny", **values}, sort_keys=False)
    (project / "config/runs/mine.yaml").write_text(body)


def encoder(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "max_tokens": 16, "padded": True, **more}


@pytest.mark.parametrize("kind", ["openai", "transformers"])
def test_more_tokens_than_a_text_encoder_has_places_for_are_refused_with_its_number(
    kind: str, project: Path
) -> None:
    write_json(project / "tower/config.json", {"hidden_size": 64, "max_position_embeddings": POSITIONS})
    name = {"openai": "demo-text", "transformers": "tower"}[kind]
    write_run(project, cache={"text_encoders": [encoder(name, max_tokens=POSITIONS)]})
    assert load_project("mine", project)
    write_run(project, cache={"text_encoders": [encoder(name, max_tokens=77)]})
    told = (
        rf"mine\.yaml: cache\.text_encoders\.0\.max_tokens: {name} has places for 32 tokens, not 77; write 32"
    )
    with pytest.raises(ConfigError, match=told):
        load_project("mine", project)
    (project / "config/runs/mine.yaml").write_text("extends: demo\ncache: {max_text_tokens: 77}\n")
    with pytest.raises(ConfigError, match=r"cache\.max_text_tokens: demo-text has places for 32 tokens"):
        load_project("mine", project)


SDXL = [encoder("demo-text", hidden_layer=-2), encoder("demo-text-2", hidden_layer=-2, pooled=True)]
PROJECTED = WIDTH + 6 * TIME["addition_time_embed_dim"]


@pytest.mark.parametrize(
    ("family", "network", "told"),
    [
        ("unet-sd", UNET, None),
        ("unet-sd", {**UNET, "cross_attention_dim": 1024}, "its cross_attention_dim is 1024, but 128 is needed"),
        ("unet-sd", {**UNET, "_class_name": "UNet2DConditionModel"}, None),
        ("unet-sd", {"_class_name": "FluxTransformer2DModel"},
         "weights is a FluxTransformer2DModel, and a unet-sd is a UNet2DConditionModel"),
        ("unet-sd", {**UNET, "in_channels": 9}, "its in_channels is 9, but 16 is needed"),
        ("unet-sdxl", {**UNET, **TIME, "cross_attention_dim": 2 * WIDTH,
                       "projection_class_embeddings_input_dim": PROJECTED}, None),
        ("unet-sdxl", {**UNET, "addition_embed_type": None}, "its addition_embed_type is None, but text_time is"),
        ("unet-sdxl", {**UNET, **TIME, "cross_attention_dim": 2 * WIDTH,
                       "projection_class_embeddings_input_dim": 2816},
         f"its projection_class_embeddings_input_dim is 2816, but {PROJECTED} is needed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["weights/unet", "weights"])
def test_pretrained_weights_of_other_sizes_are_refused_before_anything_is_encoded(
    family: str, network: dict[str, Any], told: str | None, place: str, project: Path
) -> None:
    write_json(project / place / "config.json", network)
    sdxl = {"text_encoders": SDXL, "size_conditioning": True}
    cache = sdxl if family == "unet-sdxl" else {"text_encoders": [encoder("demo-text")]}
    # A model of another family replaces that of the run that is extended.
    model = {"family": family, "pretrained": "weights", **({"params": None} if family == "unet-sd" else {})}
    write_run(project, cache=cache, model=model)
    if told is None:
        assert load_project("mine", project)
        return
    with pytest.raises(ConfigError) as error:
        load_project("mine", project)
    assert "mine.yaml: model.pretrained: weights " in str(error.value) and told in str(error.value)


def test_what_is_elsewhere_or_says_no_sizes_is_left_to_the_training(project: Path) -> None:
    model = {"family": "unet-sd", "pretrained": "weights", "params": None}
    write_run(project, cache={"text_encoders": [encoder("tower", max_tokens=900)]}, model=model)
    assert load_project("mine", project)
    write_json(project / "tower/config.json", {"hidden_size": "wide"})
    write_json(project / "weights/unet/config.json", {})
    assert load_project("mine", project)


def network(folder: Path, *files: str) -> Component:
    write_json(folder / "unet/config.json", {})
    for name in files:
        save_file({"weight": torch.zeros(2)}, folder / "unet" / name)
    return Component(kind="model", path=str(folder))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("diffusion_pytorch_model.fp16.safetensors",),
         r"has no diffusion_pytorch_model\.safetensors, .*\.fp16\.safetensors: a variant is not taken .*ln -s"),
        (("diffusion_pytorch_model.bin",), r"diffusion_pytorch_model\.bin: a pickle is not read"),
        ((), r"unet has no diffusion_pytorch_model\.safetensors, which a model has$"),
    ],
)  # fmt: skip
def test_weights_that_would_not_be_read_are_refused_before_any_job(
    files: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        check_component(network(tmp_path, *files))
    check_component(network(tmp_path, *files, WEIGHTS))


def test_a_variant_of_a_vae_or_an_encoder_is_named_too(tmp_path: Path) -> None:
    demo = ROOT / "src/darkroom_demo/components"
    for kind, of, name in (("vae", "vae", WEIGHTS), ("text_encoder", "t5", "model.safetensors")):
        shutil.copytree(demo / of, tmp_path / of)
        variant = name.replace(".safetensors", ".fp16.safetensors")
        (tmp_path / of / name).rename(tmp_path / of / variant)
        with pytest.raises(ValueError, match=rf"; {variant}: a variant is not taken for them by itself"):
            check_component(Component(kind=kind, path=str(tmp_path / of)))  # type: ignore[arg-type]


def test_shards_are_all_there_or_the_one_that_is_not_is_named(tmp_path: Path) -> None:
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    component = network(tmp_path, *shards)
    index = {"weight_map": dict(zip(("a", "b"), shards, strict=True))}
    write_json(tmp_path / f"unet/{WEIGHTS}.index.json", index)
    check_component(component)
    (tmp_path / "unet" / shards[1]).unlink()
    with pytest.raises(ValueError, match=rf"unet has no {shards[1]}, which a model has"):
        check_component(component)
    write_json(tmp_path / f"unet/{WEIGHTS}.index.json", {})
    with pytest.raises(ValueError, match=r"index\.json: is no index of weights"):
        check_component(component)
