"""`darkroom sample`: one load, many prompts, any exported model, two models side by side."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from doc_pages import DOCS, ROOT, blocks, commands
from PIL import Image
from sample_folders import ours, stable_diffusion  # noqa: F401 - fixtures
from test_components import write_clip
from test_sample_pipeline import build
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.config import load_project
from darkroom.formats.diffusers import save_part
from darkroom.sample.command import find_clip, find_model, read_prompts
from darkroom.sample.compare import paired, summary
from darkroom.sources import dreambooth


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
    folders = {"SD14": stable_diffusion, "MY_CAT": ROOT / "src/darkroom_demo/pictures/subject",
               "CLIP_VIT_L_14": write_clip(tmp_path / "clip")}  # fmt: skip
    exports = [f"export {name}={folder}" for name, folder in folders.items()]
    output = project.run("bash", "-ec", "\n".join([*exports, less, *block[1:], 'echo "class folder: $CATS"']))
    assert {"download_part", "train_run"} <= set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))
    drawn = project.folder / output.rsplit("class folder: ", 1)[1].strip()
    own = source.model_copy(update={"class_folder": str(drawn), "instance_folder": str(folders["MY_CAT"])})
    classes = [row for row in dreambooth.FOLDERS.listing(own).rows if row.url.startswith("local:class/")]
    named = [(row.url, row.captions) for row in classes]
    assert named == [(f"local:class/00000-seed{k}.png", [source.class_prompt]) for k in range(3)]


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


def test_a_run_is_found_by_its_name_with_how_it_is_drawn_from(tmp_path):
    import shutil

    shutil.copytree(Path(__file__).parents[1] / "config", tmp_path / "config")
    with pytest.raises(ValueError, match="snakemake train --config run=demo makes it"):
        find_model("demo", tmp_path)
    (tmp_path / "results/runs/demo/train/model").mkdir(parents=True)
    folder, sampling = find_model("demo", tmp_path)
    assert folder == tmp_path / "results/runs/demo/train/model"
    assert (sampling.width_px, sampling.num_inference_steps) == (64, 16)
    assert find_clip("demo-clip", tmp_path).path == "src/darkroom_demo/components/clip"


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
