"""The recipes: documented values are the configuration's, and every twin goes through the whole chain."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import TinyProject

from darkroom.config import load_project
from darkroom.config.dataset import parse_source
from darkroom.sources.table import count_rows
from darkroom.store import read_manifest

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/recipes"
RECIPES = sorted(path.stem for path in PAGES.glob("*.md") if path.stem not in ("README", "mended"))
# What stock diffusers loads a recipe's model with.
PIPELINES = {
    "pixelprose-sd3": "StableDiffusion3Pipeline",
    "pixelprose-sd3-context": "DiffusionPipeline",
    "sd3-scratch": "DiffusionPipeline",
    "dreambooth-sd14": "StableDiffusionPipeline",
    "sdxl-novelai": "StableDiffusionXLPipeline",
    "sd2-at-scale": "StableDiffusionPipeline",
    "sd2-imagenet": "StableDiffusionPipeline",
}
# What every page must tell of.
TOLD = {
    *(
        "seed",
        "bucket.resolution_px",
        "draw.sampling.num_inference_steps",
        "draw.sampling.guidance_scale",
    ),
    *(
        f"train.{name}"
        for name in (
            *("learning_rate", "learning_rate_decay", "num_warmup_steps", "betas", "epsilon", "weight_decay"),
            *("max_grad_norm", "microbatch_size", "global_batch_size", "num_steps", "caption_dropout"),
            *("ema_decay", "dtype", "checkpoint_every_steps"),
        )
    ),
}
_ROW = re.compile(r"^\| `([\w.]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


def configured(name: str, key: str) -> str:
    value: Any = load_project(name, ROOT).run
    for part in key.split("."):
        if isinstance(value, tuple):
            value = value[int(part)]
        else:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def test_every_recipe_has_a_page_a_run_a_twin_and_a_line_in_the_table() -> None:
    table = (PAGES / "README.md").read_text()
    assert sorted(PIPELINES) == RECIPES
    for name in RECIPES:
        assert f"[{name}]({name}.md)" in table
        twin = (ROOT / f"config/runs/{name}-tiny.yaml").read_text()
        assert load_project(name, ROOT) and load_project(f"{name}-tiny", ROOT)
        assert "extends: " in twin


@pytest.mark.parametrize("name", RECIPES)
def test_the_values_of_a_page_are_those_of_its_run(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    rows = _ROW.findall(page)
    assert len(rows) == page.count("\n| `")
    assert {key for key, _ in rows} >= TOLD
    for heading in ("**Origin:** ", "## What differs, and why", "## What it costs", "## The command"):
        assert heading in page
    for key, told in rows:
        found = configured(name, key)
        try:
            assert float(found) == float(told), key
        except ValueError:
            assert found == told, key


def test_a_twin_differs_from_its_run_in_size_and_not_in_what_it_learns() -> None:
    for name in RECIPES:
        run, twin = (load_project(n, ROOT).run for n in (name, f"{name}-tiny"))
        assert run.train.objective == twin.train.objective, name
        assert run.model.family == twin.model.family
        assert run.train.prior_weight == twin.train.prior_weight
        assert (run.train.initial_run is None) == (twin.train.initial_run is None)
        assert run.train.carry_optimizer == twin.train.carry_optimizer


@pytest.mark.parametrize("name", RECIPES)
def test_data_that_are_not_here_are_named_before_any_job(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_project(name, ROOT).dataset.source.model_dump()
    variables = re.findall(r"\$(\w+)", str(source))
    assert variables
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValueError, match=rf"environment variable {variables[0]} is not set; export"):
        count_rows(parse_source(source))


# Mended defects of the systems that the recipes come from.


def test_mended_no_caption_dropout_recipes_that_guide_drop_captions() -> None:
    for name in ("pixelprose-sd3", "sd2-at-scale", "sdxl-novelai"):
        assert load_project(name, ROOT).run.train.caption_dropout == 0.1


def test_mended_null_rate_all_encoders_are_null_together_for_a_tenth_of_the_samples() -> None:
    train = load_project("sd3-scratch", ROOT).run.train
    joint = 1.0
    for rate in train.encoder_dropout:
        joint *= rate
    assert train.caption_dropout + (1 - train.caption_dropout) * joint == pytest.approx(0.1, abs=2e-3)


def test_mended_second_encoder_sdxl_reads_the_penultimate_layer_and_the_projection() -> None:
    encoders = load_project("sdxl-novelai", ROOT).run.cache.encoders
    assert [use.hidden_layer for use in encoders] == [-2, -2] and encoders[1].pooled
    assert load_project("sdxl-novelai", ROOT).run.cache.size_conditioning


def test_mended_terminal_steps_min_snr_has_a_floor() -> None:
    assert load_project("sdxl-novelai", ROOT).run.train.objective.weight_floor == 1.0


def test_mended_half_precision_weights_no_recipe_can_ask_for_them() -> None:
    for name in RECIPES:
        assert load_project(name, ROOT).run.train.dtype == "bfloat16"  # autocast; weights are float32


def test_mended_secrets_no_configuration_has_a_place_for_a_token() -> None:
    text = "".join(p.read_text() for p in sorted((ROOT / "config").rglob("*.yaml")))
    assert not re.search(r"api_key|hf_[A-Za-z0-9]{20}|token:", text)


@pytest.fixture(scope="module")
def recipes_project(make_tiny_project: Callable[[str], TinyProject]) -> TinyProject:
    return make_tiny_project("recipes")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "file", "values", "name"),
    [
        ("demo", "config/components.yaml", {"demo-captioner": {"path": "$SD14"}}, "demo-captioner"),
        (
            "dreambooth-sd14-tiny",
            "config/runs/dreambooth-sd14-tiny.yaml",
            {"model": {"pretrained": "sd14", "params": None}},
            "sd14",
        ),
    ],
)
def test_a_variable_of_a_component_that_is_not_set_is_named_before_any_job(
    run: str, file: str, values: Any, name: str, recipes_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = recipes_project.read(file)
    monkeypatch.delenv("SD14", raising=False)
    recipes_project.edit(file, values)
    told = recipes_project.run("snakemake", "-n", "--config", f"run={run}", check=False)
    recipes_project.write(file, kept)
    unset = "the environment variable SD14 is not set; export SD14=FOLDER"
    assert f"config/components.yaml: {name}: path: $SD14: {unset}" in told, told


@pytest.fixture(scope="module")
def twins(recipes_project: TinyProject) -> TinyProject:
    """All twins made by one command, in a few steps and pictures: what they learn in all of theirs is published.
    One measures all that its run does, the others what is quickest: metrics read pictures, whatever drew them."""
    for name in sorted(path.stem for path in (ROOT / "config/runs").glob("*-tiny.yaml")):
        num_steps = 60 if load_project(name, ROOT).run.train.initial_run is None else 30
        few = {
            "train": {"num_steps": num_steps, "checkpoint_every_steps": 30},
            "draw": {"max_prompts": 6, "num_pictures_per_prompt": 1, "sampling": {"num_inference_steps": 2}},
            "evaluate": {"num_bootstrap": 20},
        }
        recipes_project.edit(f"config/runs/{name}.yaml", few)
    for name in RECIPES:
        if name != "pixelprose-sd3":
            slow = dict.fromkeys(("geneval", "frechet_clip_distance", "kernel_clip_distance"))
            recipes_project.edit(f"config/runs/{name}-tiny.yaml", {"measure": slow})
    runs = ",".join(f"{name}-tiny" for name in RECIPES)
    # As inside `dvc repro`: what is recorded in DVC is tested elsewhere.
    command = f"DVC_STAGE=x snakemake --keep-going --quiet all --config run={runs}"
    recipes_project.first_output = recipes_project.run("bash", "-ec", command, check=False, timeout_s=3000)
    return recipes_project


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_twin_goes_through_the_whole_chain_to_a_model_that_diffusers_loads(
    name: str, twins: TinyProject
) -> None:
    run = twins.folder / f"results/runs/{name}-tiny"
    assert (run / "report/report.html").exists(), twins.first_output[-6000:]
    initial = load_project(f"{name}-tiny", ROOT).run.train.initial_run
    first = initial or f"{name}-tiny"
    while (before := load_project(first, ROOT).run.train.initial_run) is not None:
        first = before
    loss = pl.read_parquet(twins.folder / f"results/runs/{first}/train/history.parquet")["loss"]
    assert loss[-10:].mean() < loss[:3].mean()
    if initial is not None:
        begun = pl.read_parquet(run / "train/history.parquet")["loss"][0]
        assert begun < (loss[0] + loss[-10:].mean()) / 2
        assert read_manifest(run / "train/manifest.json")["upstream"].keys() == {"cache", "initial"}


@pytest.mark.slow
def test_scripts_with_diffusers_alone_draw_from_every_twin_at_two_aspect_ratios(twins: TinyProject) -> None:
    lines = ["import sys; sys.modules['darkroom'] = None", "import diffusers"]
    for name, pipeline in PIPELINES.items():
        assert (twins.folder / f"results/runs/{name}-tiny/train/model/model_index.json").exists()
        options = (
            ", custom_pipeline=folder, trust_remote_code=True" if pipeline == "DiffusionPipeline" else ""
        )
        lines += [
            f"folder = 'results/runs/{name}-tiny/train/model'",
            f"pipe = diffusers.{pipeline}.from_pretrained(folder{options})",
            "for size in ((64, 96), (96, 64)):",
            "    drawn = pipe('a red circle', width=size[0], height=size[1], num_inference_steps=2)",
            "    assert drawn.images[0].size == size",
        ]
    twins.run("python", "-c", "\n".join(lines))
