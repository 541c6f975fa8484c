"""`darkroom sample`: one load, many prompts, any exported model, two models side by side."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from doc_pages import DOCS, ROOT, blocks, commands
from PIL import Image
from test_components import CONTEXT, write_clip, write_vae
from test_sample_pipeline import build
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config import load_project
from darkroom.config.components import Component
from darkroom.config.run import Sampling
from darkroom.folders import list_folders
from darkroom.models.components import load_clip
from darkroom.sample.command import find_clip, find_model, read_prompts
from darkroom.sample.compare import paired, summary
from darkroom.sample.export import export_pipeline, save_part
from darkroom.sample.model import Drawing, drawn_seeds, guidance_scale, load_model

FEW = Sampling(num_inference_steps=3, guidance_scale=3.0, width_px=32, height_px=16)
PLAIN = Drawing(FEW, dtype="float32")


def text_tower(folder: Path, kind):
    write_clip(folder)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=CONTEXT)
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, projection_dim=16,
        num_attention_heads=2, max_position_embeddings=CONTEXT, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return kind(config).eval(), tokenizer


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    return export_pipeline(build(folder / "parts"), folder / "model")


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sd")
    text, tokenizer = text_tower(folder / "text", CLIPTextModel)
    torch.manual_seed(4)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL.from_pretrained(write_vae(folder / "vae", shift=None))
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, clip_sample=False, steps_offset=1,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def stable_diffusion_3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sd3")
    text, tokenizer = text_tower(folder / "text", CLIPTextModelWithProjection)
    torch.manual_seed(5)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=32, out_channels=4,
    )  # fmt: skip
    vae = AutoencoderKL.from_pretrained(write_vae(folder / "vae"))
    pipeline = StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae,
        text,
        tokenizer,
        text,
        tokenizer,
        None,
        None,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(params=["ours", "stable_diffusion", "stable_diffusion_3"])
def any_model(request) -> Path:
    return request.getfixturevalue(request.param)


def fitting(folder: Path) -> list[str | None]:
    flow = "FlowMatch" in (folder / "scheduler/scheduler_config.json").read_text()
    return [None, "euler", "heun", "dpm++", "euler-stochastic" if flow else "ddim"]


def test_every_sampler_draws_from_every_kind_of_model(any_model):
    model = load_model(any_model)
    drawn = {}
    for name in fitting(any_model):
        drawn[name] = model.draw(["red circle", "a"], [1, 2], Drawing(FEW, sampler=name, dtype="float32"))
        assert drawn[name].shape == (2, 16, 32, 3) and drawn[name].std() > 0
    assert len({pictures.tobytes() for pictures in drawn.values()}) >= 4  # euler is what flow models export
    assert np.array_equal(model.draw(["red circle", "a"], [1, 2], PLAIN), drawn[None])


def test_a_seed_gives_its_picture_whatever_is_drawn_beside_it(any_model):
    model = load_model(any_model)
    for name in fitting(any_model)[1::3]:
        drawing = Drawing(FEW, sampler=name, dtype="float32")
        together = model.draw(["red", "a", "red circle"], [1, 2, 3], drawing).astype(int)
        alone = model.draw(["red circle"], [3], drawing).astype(int)
        assert np.abs(together[2:] - alone).max() <= 1
        assert np.abs(together[0] - together[1]).max() > 1


def test_a_size_that_does_not_fit_is_refused_with_the_nearest(any_model):
    model = load_model(any_model)
    step = model.size_step
    wrong = FEW.model_copy(update={"width_px": 10 * step + 1, "height_px": 2 * step})
    nearest = f"multiples of {step} pixels; the nearest is {10 * step}x{2 * step}"
    with pytest.raises(ValueError, match=nearest):
        model.draw(["a"], [1], Drawing(wrong))


def test_sizes_are_multiples_of_16_for_transformers_and_of_8_for_unets():
    """A VAE of factor 8, as Stable Diffusion's are."""
    from types import SimpleNamespace

    from darkroom.sample.model import SampleModel

    for network, config, step in (("transformer", {"patch_size": 2}, 16), ("unet", {}, 8)):
        model = SampleModel.__new__(SampleModel)
        model.pipeline = SimpleNamespace(vae_scale_factor=8, **{network: SimpleNamespace(config=config)})
        assert model.size_step == step
        with pytest.raises(ValueError, match="nearest is 512x512"):
            model.check_size(516, 512)


def test_rescaled_guidance_changes_the_picture_of_every_kind_of_model(any_model):
    model = load_model(any_model)
    rescaled = Drawing(FEW, guidance_rescale=0.7, dtype="float32")
    assert not np.array_equal(model.draw(["red"], [1], rescaled), model.draw(["red"], [1], PLAIN))
    assert np.array_equal(model.draw(["red"], [1], PLAIN), load_model(any_model).draw(["red"], [1], PLAIN))


def test_rescaled_guidance_gives_sd3_the_spread_of_its_conditional_prediction(stable_diffusion_3):
    model = load_model(stable_diffusion_3)
    conditional, seen = [], []
    model.pipeline.transformer.register_forward_hook(
        lambda _, __, out: conditional.append(out[0].chunk(2)[-1])
    )
    scheduler, step = model.pipeline.scheduler, model.pipeline.scheduler.step

    def watched(predicted, *arguments, **options):
        seen.append(predicted)
        return step(predicted, *arguments, **options)

    for share, is_equal in ((1.0, True), (0.0, False)):
        conditional.clear()
        seen.clear()
        type(scheduler).step, before = (lambda _, *a, **o: watched(*a, **o)), type(scheduler).step
        try:
            model.draw(["red", "a"], [1, 2], Drawing(FEW, guidance_rescale=share, dtype="float32"))
        finally:
            type(scheduler).step = before
        assert len(seen) == len(conditional) == FEW.num_inference_steps
        for guided, alone in zip(seen, conditional, strict=True):
            spreads = [t.flatten(1).std(dim=1) for t in (guided, alone)]
            assert torch.allclose(*spreads, rtol=1e-4) == is_equal
    # Without guidance there is nothing to rescale.
    none = FEW.model_copy(update={"guidance_scale": 1.0})
    drawn = [
        model.draw(["red"], [1], Drawing(none, guidance_rescale=share, dtype="float32"))
        for share in (0.0, 1.0)
    ]
    assert np.array_equal(*drawn)


def test_guidance_of_the_paper_is_one_less_than_diffusers():
    assert guidance_scale(5.0) == 5.0 and guidance_scale(5.0, "paper") == 6.0
    with pytest.raises(ValueError, match=r"0\.5 is below 1, which is none in the diffusers convention"):
        guidance_scale(0.5)
    with pytest.raises(ValueError, match="-1 is below 0"):
        guidance_scale(-1.0, "paper")


def test_random_seeds_are_drawn_for_each_picture_and_given_ones_kept():
    seeds = drawn_seeds([7, -1], 50)
    assert all(row[0] == 7 for row in seeds)
    assert len({row[1] for row in seeds}) == 50 and all(row[1] >= 0 for row in seeds)
    with pytest.raises(ValueError, match="seed -2 is neither"):
        drawn_seeds([-2], 1)


def test_several_pictures_of_a_seed_have_it_and_those_that_follow():
    assert drawn_seeds([7, 20], 2, 3) == [[7, 8, 9, 20, 21, 22]] * 2
    assert len(set(drawn_seeds([-1], 1, 50)[0])) == 50
    assert drawn_seeds([2**63 - 2], 1, 2) == [[2**63 - 2, 2**63 - 1]]
    with pytest.raises(ValueError, match=r"nor from 0 to 2\^63 - 3"):
        drawn_seeds([2**63 - 2], 1, 3)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model to draw from: it has no model_index\.json"):
        load_model(tmp_path)


# The command


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)], env={"COLUMNS": "400"})
    assert result.exit_code == 2, result.output
    return " ".join(result.output.replace("│", " ").split())


SMALL = ("--steps", 3, "--guidance", 3, "--width", 32, "--height", 16)


def test_many_prompts_are_drawn_with_a_table_a_sheet_and_animations(ours, tmp_path):
    (tmp_path / "prompts.txt").write_text("a circle\n\n")
    out = tmp_path / "out"
    output = run(ours, "red", "--prompts-file", tmp_path / "prompts.txt", "--out", out, "--seed", 5, "--seed", -1,
                 "--sampler", "heun", "--gif", *SMALL)  # fmt: skip
    table = pl.read_csv(out / "pictures.csv")
    assert table["prompt"].to_list() == ["red", "red", "a circle", "a circle"]
    assert table["seed"].to_list()[::2] == [5, 5] and len(set(table["seed"].to_list())) == 3
    for row in table.iter_rows(named=True):
        assert Image.open(out / row["file"]).size == (32, 16)
        assert f"{row['file']}: seed {row['seed']}" in output.replace("\n", "")
        with Image.open((out / row["file"]).with_suffix(".gif")) as film:
            assert film.n_frames == 5  # Heun asks the model twice in all steps but the last
            film.seek(4)
            last = np.asarray(film.convert("RGB")).astype(int)
        assert np.abs(last - np.asarray(Image.open(out / row["file"]))).mean() < 8
    settings = json.loads((out / "settings.json").read_text())
    assert settings["sampler"] == "heun" and settings["sampling"]["guidance_scale"] == 3
    assert Image.open(out / "grid.png").size[0] > 4 * 128
    assert "out is there already; name another folder" in refused(ours, "red", "--out", out)


@pytest.mark.slow
def test_the_class_pictures_of_dreambooth_are_drawn_by_the_commands_of_its_page(
    stable_diffusion, tmp_path, make_tiny_project
):
    """With three small pictures in place of a hundred large ones."""
    source = load_project("dreambooth-sd14", ROOT).dataset.source
    (block,) = commands(DOCS / "recipes/dreambooth-sd14.md")
    assert f'"{source.class_prompt}"' in block[0]
    less = block[0].replace(
        "--num-pictures 100 --steps 50", "--num-pictures 3 --steps 2 --width 64 --height 64"
    )
    assert less != block[0]
    project = make_tiny_project("dreambooth")
    folders = {"SD14": stable_diffusion, "MY_CAT": ROOT / "src/darkroom/demo/pictures/subject",
               "CLIP_VIT_L_14": write_clip(tmp_path / "clip")}  # fmt: skip
    exports = [f"export {name}={folder}" for name, folder in folders.items()]
    output = project.run("bash", "-ec", "\n".join([*exports, less, *block[1:], 'echo "class folder: $CATS"']))
    assert {"download_part", "train"} <= set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))
    drawn = project.folder / output.rsplit("class folder: ", 1)[1].strip()
    own = source.model_copy(update={"class_folder": str(drawn), "instance_folder": str(folders["MY_CAT"])})
    classes = [row for row in list_folders(own).rows if row[0].startswith("local:class/")]
    assert classes == [(f"local:class/00000-seed{k}.png", source.class_prompt) for k in range(3)]


def test_a_stored_random_seed_draws_the_same_picture_again(ours, tmp_path):
    run(ours, "red", "--out", tmp_path / "first", "--seed", -1, *SMALL)
    row = pl.read_csv(tmp_path / "first/pictures.csv").row(0, named=True)
    run(ours, "red", "--out", tmp_path / "again", "--seed", row["seed"], *SMALL)
    assert (tmp_path / "first" / row["file"]).read_bytes() == (tmp_path / "again" / row["file"]).read_bytes()


def test_two_models_are_paired_on_the_same_prompts_and_seeds(ours, tmp_path):
    clip = write_clip(tmp_path / "clip")
    save_part(build(tmp_path / "other", seed=1).transformer, tmp_path / "untrained/transformer")
    output = run(ours, "red", "a circle", "--baseline", tmp_path / "untrained", "--clip", clip, "--seed", 1,
                 "--seed", 2, "--out", tmp_path / "out", *SMALL)  # fmt: skip
    pairs = pl.read_csv(tmp_path / "out/pairs.csv")
    assert pairs.columns == ["prompt_index", "prompt", "seed", "baseline", "tuned", "difference"]
    assert len(pairs) == 4
    table = pl.read_csv(tmp_path / "out/pictures.csv")
    scorer = load_clip(Component(kind="clip", path=str(clip)))
    picture = np.asarray(Image.open(tmp_path / "out/tuned/00001-seed2.png"))
    cosine = float((scorer.encode_images([picture]) * scorer.encode_texts(["a circle"])).sum())
    found = table.filter(model="tuned", prompt_index=1, seed=2)["clip_score"].item()
    assert found == pytest.approx(100 * max(cosine, 0), abs=1e-3)
    compared = json.loads((tmp_path / "out/comparison.json").read_text())
    assert compared["num_prompts"] == 2
    assert compared["difference"] == pytest.approx(compared["tuned"] - compared["baseline"])
    assert compared["difference_low"] <= compared["difference"] <= compared["difference_high"]
    assert "over 2 prompts" in output
    assert Image.open(tmp_path / "out/grid.png").size[0] == 2 * (128 + 6) + 6


def test_a_model_paired_with_itself_shows_no_difference(ours, tmp_path):
    clip = write_clip(tmp_path / "clip")
    run(ours, "red", "a", "--baseline", ours, "--clip", clip, "--out", tmp_path / "out", *SMALL)
    compared = json.loads((tmp_path / "out/comparison.json").read_text())
    assert compared["difference"] == compared["difference_low"] == compared["difference_high"] == 0


def test_the_interval_resamples_prompts_and_not_pictures():
    """Eight pictures of each of two prompts, +1 and -1: the interval is that of two prompts."""
    rows = {
        "prompt_index": [0] * 8 + [1] * 8,
        "prompt": ["a"] * 8 + ["b"] * 8,
        "seed": [*range(8), *range(8)],
    }
    tables = {
        "baseline": pl.DataFrame({**rows, "clip_score": [10.0] * 16}),
        "tuned": pl.DataFrame({**rows, "clip_score": [11.0] * 8 + [9.0] * 8}),
    }
    result = summary(paired(tables))
    assert (result["difference"], result["difference_low"], result["difference_high"]) == (0.0, -1.0, 1.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["red", "--sampler", "euler a"], "none of euler, heun, euler-stochastic, ddim, dpm++"),
        (["red", "--width", "33"], "the nearest is 32x16"),
        (["red", "--guidance", "0.5"], "below 1, which is none in the diffusers convention"),
        (["red", "--guidance-convention", "mine"], "none of diffusers, paper"),
        (["red", "--seed", "-5"], "seed -5 is neither -1 (random)"),
        (["red", "--seed", "3", "--seed", "3"], "a seed is given twice"),
        ([], "give a prompt"),
        (["red", "--prompts-file", "nowhere.txt"], "nowhere.txt is no file of prompts"),
        (["red", "--clip", "nowhere"], "nowhere is neither a folder nor a CLIP of config/components.yaml"),
        (["red", "--baseline", "nowhere"], "nowhere is neither a folder nor a run"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(ours, tmp_path, arguments, message):
    assert message in refused(ours, *SMALL, "--out", tmp_path / "out", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_run_is_found_by_its_name_with_how_it_is_evaluated(tmp_path):
    import shutil

    shutil.copytree(Path(__file__).parents[1] / "config", tmp_path / "config")
    with pytest.raises(ValueError, match="snakemake train --config run=demo makes it"):
        find_model("demo", tmp_path)
    (tmp_path / "results/runs/demo/train/model").mkdir(parents=True)
    folder, sampling = find_model("demo", tmp_path)
    assert folder == tmp_path / "results/runs/demo/train/model"
    assert (sampling.width_px, sampling.num_inference_steps) == (64, 16)
    assert find_clip("demo-clip", tmp_path).path == "src/darkroom/demo/components/clip"


def test_prompts_are_read_a_line_each(tmp_path):
    (tmp_path / "some.txt").write_text("one\n\n  two  \n")
    assert read_prompts(tmp_path / "some.txt") == ["one", "two"]
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match="holds no prompt; write one a line"):
        read_prompts(tmp_path / "none.txt")


def test_the_documented_python_draws_from_a_model_that_is_loaded_once(ours, tmp_path, monkeypatch):
    (lines,) = blocks("python", DOCS / "sample.md")
    code = "\n".join(lines)
    assert "results/runs/demo/train/model" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("results/runs/demo/train/model", str(ours)), {})
    pictures = [
        np.asarray(Image.open(tmp_path / f"a photo of a {what}.png"))
        for what in ("red circle", "blue square")
    ]
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert not np.array_equal(*pictures)
