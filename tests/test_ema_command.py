"""`darkroom ema`: pipelines of averages of any width, by the command of the docs."""

import shlex
import shutil

import pytest
import torch
from doc_pages import DOCS, ROOT, blocks, commands
from safetensors.torch import load_file
from test_cache import SETTINGS as CACHE
from test_docs import write_examples
from test_train_stage import MODEL as TINY
from test_train_stage import SETTINGS as STAGE
from test_train_stage import run as run_stage
from test_train_stage import write_cached
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config.post_hoc_ema import PostHocEma
from darkroom.families.base import LoRA
from darkroom.formats.diffusers import load_pipeline
from darkroom.formats.lora_files import LORA_FILE
from darkroom.store import sha256_file, write_manifest
from darkroom.train.checkpoint import run_key
from darkroom.train.phases import made_from, read_finished
from darkroom.train.reconstruct import reconstruct
from darkroom.train.stage import export_reconstructed

RUN = "averaged"


def train_project(folder, model):
    """Train the run of docs/train.md for a few steps, on tiny components; its run directory, and the log."""
    cached = write_cached(folder)
    (folder / "cache.json").write_text("{}")
    settings = STAGE.model_copy(update={"num_steps": 8, "post_hoc_ema": PostHocEma(snapshot_every_steps=2)})
    digest = made_from({"cache": sha256_file(folder / "cache.json")})
    run_dir = folder / "checkpoints" / RUN / run_key(model, settings, 3, digest)
    lines = []
    results = folder / "results/runs" / RUN / "train"
    counts = run_stage(cached, results, settings, model, run_dir=run_dir, log=lines.append)
    components = zip((CACHE.vae, CACHE.text_encoder), cached[3:], strict=True)
    params = {
        "train": settings.model_dump(mode="json"),
        "model": model.model_dump(mode="json"),
        "seed": 3,
        "components": {name: of.model_dump(mode="json", exclude_defaults=True) for name, of in components},
    }
    upstream = {"cache": folder / "cache.json"}
    write_manifest(results / "manifest.json", stage="train", params=params, upstream=upstream, counts=counts)
    return run_dir, lines


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with that run, its run directory and the log of its training."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "config", folder / "config")
    examples = {block[0].removeprefix("# "): "\n".join(block) for block in blocks("yaml", DOCS / "train.md")}
    write_examples(folder, {name: text for name, text in examples.items() if name.endswith(f"{RUN}.yaml")})
    return folder, *train_project(folder, TINY)


def invoke(*arguments):
    return CliRunner().invoke(app, ["ema", *map(str, arguments)])


def test_the_commands_of_the_docs_write_pipelines_with_averages_of_other_widths(project, monkeypatch):
    folder, run_dir, lines = project
    monkeypatch.chdir(folder)
    assert any("averages of the widths 0.05" in line and "of disk in snapshots/" in line for line in lines)
    asked = [
        shlex.split(line)[1:] for block in commands(DOCS / "train.md") for line in block if " ema " in line
    ]
    assert len(asked) == 2
    first, second = (
        CliRunner().invoke(app, [a.replace("1000", "6") for a in arguments]) for arguments in asked
    )
    assert first.exit_code == 0, first.output
    assert f"{RUN}-ema-0.12: width 0.12 from 8 averages; its profile is met to" in first.output
    assert second.exit_code == 0, second.output
    assert "check: width 0.05 from the others alone: weights to" in second.output
    # All is as the training wrote it, but for the weights.
    made, model = folder / f"{RUN}-ema-0.12", folder / "results/runs" / RUN / "train/model"
    files = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    assert files == {path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    other = {path.as_posix() for path in files if (made / path).read_bytes() != (model / path).read_bytes()}
    assert other == {"transformer/diffusion_pytorch_model.safetensors"}
    expected = reconstruct(read_finished(model.parent / "manifest.json", run_dir.parent), 0.12).weights
    for name, weight in load_pipeline(made).transformer.state_dict().items():
        assert torch.equal(weight, expected[f"network.{name}"])


def test_what_the_command_cannot_do_it_says_in_a_line(project, monkeypatch, tmp_path):
    folder, run_dir, _ = project
    monkeypatch.chdir(folder)
    for arguments, told in (
        ((RUN, "--width", 0.5), "width 0.5 should be at least 0.001 and below 0.28, such as 0.1"),
        ((RUN, "--width", 0.1, "--out", "config"), "config is there already"),
        (
            (RUN, "--width", 0.1, "--step", 5, "--out", "x"),
            "step 5 has no snapshot; the nearest are of the steps",
        ),
        (
            ("demo", "--width", 0.1),
            "train/manifest.json: missing; snakemake train --config run=demo makes it",
        ),
        (("nowhere", "--width", 0.1), "nowhere"),
    ):
        found = invoke(*arguments)
        assert found.exit_code == 2 and told in found.output, found.output
        assert found.output.count("\n") == 1
    shutil.move(run_dir / "snapshots", tmp_path / "away")
    try:
        found = invoke(RUN, "--width", 0.1, "--out", "x")
        assert found.exit_code == 2 and "step-00000002: missing; " in found.output, found.output
    finally:
        shutil.move(tmp_path / "away", run_dir / "snapshots")
    assert not (folder / "x").exists()


def test_of_adapters_the_adapters_are_averaged_and_merged_into_the_same_base(tmp_path):
    model = TINY.model_copy(update={"lora": LoRA(rank=2, targets=("qkv",))})
    run_dir, _ = train_project(tmp_path, model)
    training = read_finished(tmp_path / f"results/runs/{RUN}/train/manifest.json", run_dir.parent)
    found = reconstruct(training, 0.12).weights
    assert found and all("lora_" in name for name in found)
    # Adapters in front of a network's untrained last layer, which is 0, learn nothing.
    found = {name: weight + 0.1 for name, weight in found.items()}
    export_reconstructed(training, found, tmp_path / "made")
    written = tmp_path / f"results/runs/{RUN}/train/model"
    made, kept = (load_file(folder / LORA_FILE) for folder in (tmp_path / "made", written))
    assert made.keys() == kept.keys() and not any(torch.equal(made[name], kept[name]) for name in made)
    one, other = (load_pipeline(folder).transformer.state_dict() for folder in (tmp_path / "made", written))
    changed_ones = {name for name, weight in one.items() if not torch.equal(weight, other[name])}
    assert changed_ones and all("qkv" in name for name in changed_ones)
    with pytest.raises(ValueError, match=r"its snapshots have 1 weights, and the run's model trains"):
        export_reconstructed(training, {"a": torch.zeros(1)}, tmp_path / "other")
