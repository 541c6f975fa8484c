"""Mistakes that would cost a cluster's hours: each is refused before any job, with what to write instead."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TinyProject

from darkroom.config import ConfigError, load_project

ROOT = Path(__file__).parents[1]
TWIN = "sdxl-novelai-tiny"
V = {"prediction": "v", "schedule": "scaled_linear", "zero_terminal_snr": True}
UNET = {"block_out_channels": [32], "sample_size": 4}
PADDED = {"name": "demo-text", "max_tokens": 32, "padded": True}
CLIP = {**PADDED, "hidden_layer": -2, "pooled": True}
CLIP_2 = {**CLIP, "name": "demo-text-2"}
ZEROS = {"name": "demo-t5", "max_tokens": 48, "padded": True, "no_caption": "zeros"}
PIXELS = {"width_px": 500, "height_px": 512}
# Runs besides `wrong`, which phases go on from.
RUNS = {
    "first": {},
    "second": {"bucket": {"resolution_px": 96}, "train": {"initial_run": "first"}},
    "loop": {"train": {"initial_run": "wrong"}},
}


def phase(before: str = "first", **values: Any) -> dict[str, Any]:
    train = {"initial_run": before, **values.pop("train", {})}
    return {"train": train, **values}


# What a run writes over the demo (or what `extends` says) -> what the refusal tells, and what it says to write.
MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "an unknown encoder": (
        {"cache": {"text_encoder": "demo-txt"}},
        ("cache.text_encoder: no text_encoder 'demo-txt'", "did you mean 'demo-text'?"),
    ),
    "an unknown encoder in a list": (
        {"cache": {"text_encoder": None, "text_encoders": [{"name": "t5"}]}},
        ("cache.text_encoders: no text_encoder 't5'", "did you mean 'sd3-t5'?"),
    ),
    "a bucket size that the step does not divide": (
        {"bucket": {"resolution_px": 100}},
        ("bucket: resolution_px 100 is no multiple of step_px 16; 96 would be",),
    ),
    "a bucket step that the latents do not divide": (
        {"bucket": {"step_px": 8}},
        ("bucket.step_px: 8 is not a multiple of 16 px (16 a latent of demo-vae, times patch_size 1)", "write 16"),
    ),
    "a bucket step that the patches do not divide": (
        {"model": {"patch_size": 2}},
        ("bucket.step_px: 16 is not a multiple of 32 px", "times patch_size 2); write 32"),
    ),
    "buckets none of which has the resolution": (
        {"bucket": {"resolution_px": 160}},
        ("resolution_px 160 is not within min_side_px 32 and max_side_px 128", "write another"),
    ),
    "a size to draw that a transformer cannot": (
        {"draw": {"sampling": PIXELS}},
        ("draw.sampling: 500x512: each side must be a multiple of 16 px", "width_px: 496, height_px: 512"),
    ),
    "a size to draw during training that a transformer cannot": (
        {"train": {"sampling": {"width_px": 64, "height_px": 72}}},
        ("train.sampling: 64x72: each side must be a multiple of 16 px", "write width_px: 64, height_px: 64"),
    ),
    "a size to draw that SD3's patches do not divide": (
        {"extends": "pixelprose-sd3", "draw": {"sampling": PIXELS}},
        ("500x512: each side must be a multiple of 16 px (8 a latent of sd3-vae, times patch_size 2)", "496"),
    ),
    "a size to draw that a UNet's VAE does not divide": (
        {"extends": "sdxl-novelai", "draw": {"sampling": PIXELS}},
        ("500x512: each side must be a multiple of 8 px (8 a latent of sdxl-vae", "write width_px: 496"),
    ),
    "bfloat16 weights": (
        {"train": {"parameter_dtype": "bfloat16"}},
        ("train.parameter_dtype: weights in bfloat16 lose their updates", "write dtype: bfloat16"),
    ),
    "float16 weights": (
        {"train": {"parameter_dtype": "float16"}},
        ("train.parameter_dtype: weights in float16 lose their updates", "write dtype: bfloat16"),
    ),
    "training in float16": (
        {"train": {"dtype": "float16"}},
        ("train.dtype: float16 is not trained in: small gradients become 0", "write dtype: auto, bfloat16"),
    ),
    "a weighting that gives the terminal steps nothing": (
        {"train": {"objective": {**V, "weighting": "min_snr"}}},
        ("train.objective: weighting min_snr gives the terminal steps", "write weight_floor: 1.0 beside it, or"),
    ),
    "another weighting that gives the terminal steps nothing": (
        {"train": {"objective": {**V, "weighting": "soft_min_snr"}}},
        ("train.objective: weighting soft_min_snr gives the terminal steps", "or weighting: min_snr_plus_one"),
    ),
    "epsilon from pure noise": (
        {"train": {"objective": {**V, "prediction": "epsilon"}}},
        ("train.objective: zero_terminal_snr ends in pure noise", "write prediction: v"),
    ),
    "phases from large to small": (
        phase("second"),
        ("'second' trains at 96 px and this run at 64 px", "phases go from small to large", "write a larger"),
    ),
    "a phase that is not there": (
        phase("frist"),
        ("train.initial_run: no run 'frist'", "did you mean 'first'?"),
    ),
    "a phase that goes on from itself": (
        phase("wrong"),
        ("'wrong' comes after itself (wrong -> wrong)", "writes initial_run: null"),
    ),
    "phases in a circle": (
        phase("loop"),
        ("'wrong' comes after itself (wrong -> loop -> wrong)", "writes initial_run: null"),
    ),
    "a phase of another family": (
        {
            **phase(),
            "model": {"family": "unet-sd", "params": UNET},
            "cache": {"text_encoder": None, "text_encoders": [PADDED]},
            "train": {"initial_run": "first", "objective": {"prediction": "epsilon", "schedule": "cosine"}},
        },
        ("'first' trains a mmdit and this run a unet-sd", "write model.family: mmdit"),
    ),
    "a phase of another shape": (
        phase(model={"num_blocks": 7}),
        ("'first' has model.num_blocks: 6 and this run 7", "write it so, or another initial_run"),
    ),
    "a phase with other weights than the first has": (
        phase(model={"mlp": "swiglu"}),
        ("'first' has model.mlp: gelu and this run swiglu", "write it so"),
    ),
    "a phase with another cache": (
        phase(cache={"max_text_tokens": 20}),
        ("'first' has cache.max_text_tokens: 32 and this run 20", "write it so"),
    ),
    "a phase on other data": (
        phase(dataset="demo-pictures"),
        ("'first' has the dataset demo; write dataset: demo",),
    ),
    "moments of another optimizer": (
        phase(train={"optimizer": "adamw"}),
        ("'first' has the optimizer muon", "write train.carry_optimizer: false"),
    ),
    "a phase that learns something else": (
        phase(train={"objective": {"prediction": "v", "schedule": "cosine"}}),
        ("learns prediction flow and this run v", "write train.objective.prediction: flow"),
    ),
    "LoRA on a layer that no UNet has": (
        {"extends": TWIN, "model": {"lora": {"targets": ["to_qq"]}}},
        ("model: lora.targets: a unet-sdxl has no layer 'to_qq'", "did you mean 'to_q'?"),
    ),
    "LoRA on a layer of another family": (
        {"model": {"lora": {"targets": ["to_q"]}}},
        ("lora.targets: a mmdit has no layer 'to_q'", "(all: qkv, attention_out,"),
    ),
    "a rank for a layer without adapters": (
        {"model": {"lora": {"targets": ["qkv", "mlp_in"], "rank_pattern": {"blocks.0.mlp_im": 8}}}},
        ("model.lora: rank_pattern: 'blocks.0.mlp_im' is none of targets", "did you mean 'mlp_in'?"),
    ),
    "LoRA on a layer that another MLP would have": (
        {"model": {"lora": {"targets": ["mlp_gate"]}}},
        ("lora.targets: 'mlp_gate' is of mlp: swiglu alone", "write that, or leave it out"),
    ),
    "an unknown attention": (
        {"model": {"attention": "flash3"}},
        ("model.attention: input should be 'sdpa', 'flash', 'xformers' or 'sliced'; it is 'flash3'",),
    ),
    "offload without shards": (
        {"train": {"cpu_offload": True}},
        ("train: cpu_offload brings shards to the GPU", "write parallelism: fsdp beside it, or leave it out"),
    ),
    "encoders beside a cache": (
        {"train": {"encoder_ranks": 1}},
        ("train.encoder_ranks: 1 would encode what the cache has", "write cache: {online: true}, or leave"),
    ),
    "compiled blocks in shards": (
        {"train": {"compile": "auto", "parallelism": "fsdp"}},
        ("train: compile: auto compiles blocks with whole weights", "write compile: off, or parallelism: ddp"),
    ),
    "other attention in compiled blocks": (
        {"train": {"compile": "on"}, "model": {"attention": "xformers"}},
        ("train.compile: on needs torch's own attention", "write attention: sdpa, or compile: off"),
    ),
    "base weights of 4 bits in shards": (
        {
            "model": {"lora": {"targets": ["qkv"], "base_dtype": "nf4"}},
            "train": {"parallelism": "fsdp", "optimizer": "adamw"},
        },
        ("model.lora.base_dtype: nf4 goes with train.parallelism: ddp, and it is fsdp", "or base_dtype: float32"),
    ),
    "base weights of 8 bits in compiled blocks": (
        {"model": {"lora": {"targets": ["qkv"], "base_dtype": "int8"}}, "train": {"compile": "auto"}},
        ("model.lora.base_dtype: int8 goes with train.compile: off, and it is auto", "or base_dtype: float32"),
    ),
    "moments of 8 bits in shards": (
        {"train": {"optimizer": "adamw8bit", "parallelism": "fsdp"}},
        ("train: optimizer adamw8bit scales moments by blocks", "write optimizer: adamw"),
    ),
    "slices of another network than a UNet": (
        {"model": {"attention": "sliced"}},
        ("model.attention: sliced is for UNets, and this is a mmdit", "write sdpa"),
    ),
    "flash attention in float32": (
        {"model": {"attention": "flash"}, "train": {"dtype": "float32"}},
        ("model.attention: flash computes in bfloat16", "write train.dtype: bfloat16, or sdpa"),
    ),
    "dropout of more encoders than there are": (
        {"train": {"encoder_dropout": [0.3, 0.3]}},
        ("train.encoder_dropout: has 2 numbers for 1 text encoders (demo-text)", "write one for each"),
    ),
    "dropout of fewer encoders than there are": (
        {"extends": "pixelprose-sd3-tiny", "train": {"encoder_dropout": [0.464]}},
        ("encoder_dropout: has 1 numbers for 3 text encoders (demo-text, demo-text-2, demo-t5)", "write one"),
    ),
    "a null of zeros that SD's pipeline does not draw with": (
        {"extends": "dreambooth-sd14-tiny", "cache": {"text_encoders": [{**PADDED, "no_caption": "zeros"}]}},
        ("text_encoders.0.no_caption: diffusers' pipeline of a unet-sd guides away from the empty text", "empty"),
    ),
    "a null of zeros that SD3's pipeline does not draw with": (
        {"extends": "pixelprose-sd3-tiny", "cache": {"text_encoders": [CLIP, CLIP_2, ZEROS]}},
        ("text_encoders.2.no_caption: diffusers' pipeline of a sd3 guides away from the empty text", "empty"),
    ),
    "zeros of one of SDXL's text encoders": (
        {"extends": TWIN, "cache": {"text_encoders": [
            {**CLIP, "pooled": False}, {**CLIP_2, "no_caption": "zeros"},
        ]}},
        ("text_encoders.0.no_caption: diffusers' pipeline of a unet-sdxl has zeros for all", "write the same"),
    ),
    "SDXL without sizes": (
        {"extends": TWIN, "cache": {"size_conditioning": False}},
        ("cache.size_conditioning: unet-sdxl is told sizes and crops; write true",),
    ),
}  # fmt: skip


def write_runs(folder: Path, wrong: dict[str, Any]) -> None:
    for name, values in {**RUNS, "wrong": wrong}.items():
        path = folder / f"config/runs/{name}.yaml"
        path.write_text(yaml.safe_dump({"extends": "demo", **values}, sort_keys=False))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_by_the_file_and_key_with_what_to_write(mistake: str, tmp_path: Path) -> None:
    wrong, told = MISTAKES[mistake]
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")  # the demo's components
    write_runs(tmp_path, wrong)
    with pytest.raises(ConfigError) as error:
        load_project("wrong", tmp_path)
    for part in ("wrong.yaml: ", *told):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "right",
    [
        {"bucket": {"step_px": 32}, "model": {"patch_size": 2}},
        {"train": {"sampling": {"height_px": 72}, "sample_every_steps": 0}},  # nothing is drawn
        {"train": {"objective": {**V, "weighting": "min_snr", "weight_floor": 1.0}}},
        {"model": {"mlp": "swiglu", "lora": {"targets": ["mlp_gate"]}}},
        phase(bucket={"resolution_px": 96}, model={"position_interpolation": 1.5}),
    ],
)
def test_what_the_refusals_say_to_write_is_accepted(right: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")
    write_runs(tmp_path, right)
    assert load_project("wrong", tmp_path)


@pytest.mark.slow
def test_snakemake_refuses_before_any_job_and_names_the_file(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    """Attention and 8 bits the configuration alone does not tell: there must be no GPU, no bitsandbytes here."""
    project = make_tiny_project("mistakes")
    attention = {"model": {"attention": "xformers"}}
    cases = [
        MISTAKES["a size to draw that a transformer cannot"],
        (attention, ("model.attention xformers needs a GPU", "runs on cpu: write sdpa")),
    ]
    if find_spec("bitsandbytes") is None:
        optimizer = {"train": {"optimizer": "adamw8bit"}}
        cases.append((optimizer, ("adamw8bit needs bitsandbytes", "run `pip install bitsandbytes`")))
        base = {"model": {"lora": {"targets": ["qkv"], "base_dtype": "nf4"}}}
        cases.append((base, ("base_dtype: nf4 needs bitsandbytes", "or write float32")))
    if find_spec("mlflow") is None:
        tracked = {"trackers": [{"kind": "mlflow"}]}
        cases.append((tracked, ("trackers: kind mlflow needs mlflow", "run `uv pip install -e '.[mlflow]'`")))
    for wrong, told in cases:
        write_runs(project.folder, wrong)
        project.variables = {"CUDA_VISIBLE_DEVICES": ""}
        output = project.run("snakemake", "-n", "--config", "run=wrong", check=False)
        for part in ("config/runs/wrong.yaml: ", *told):
            assert part in output
        assert "rule train:" not in output and "would have been executed" not in output
    write_runs(project.folder, attention)
    project.variables = {"CUDA_VISIBLE_DEVICES": "", "SNAKEMAKE_PROFILE": "profiles/slurm"}
    assert "train_run" in project.planned("--config", "run=wrong")  # the cluster's node has one
