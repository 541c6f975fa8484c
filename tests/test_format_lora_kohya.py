"""Adapters as kohya's scripts write them: what ComfyUI adds to a layer is the whole change that was trained."""

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from doc_pages import DOCS, ROOT, blocks, commands
from format_models import PIPELINES, pipeline_of, with_adapters
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_docs import write_examples
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.export import export_file
from darkroom.formats.lora_files import LORA_FILE

NETWORK = "model.diffusion_model."


def exported(folder: Path, kind: str, **options) -> SimpleNamespace:
    """A base model, the same with adapters (rank 2, alpha 4), and kohya's file of these."""
    with_adapters(pipeline_of(kind, folder), folder, **options)
    lora, notes = export_file(str(folder / "tuned"), "lora_kohya", folder / "lora.safetensors", "float32")
    return SimpleNamespace(
        base=folder / "base", tuned=folder / "tuned", lora=lora, folder=folder, notes=notes
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(kind)`, see `exported`."""
    done = {}

    def get(kind):
        if kind not in done:
            done[kind] = exported(tmp_path_factory.mktemp(kind), kind)
        return done[kind]

    return get


def patched(weights: dict[str, torch.Tensor], lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with adapters as ComfyUI adds them: it looks for the name of each weight, dots being underscores."""
    lora, found = dict(lora), dict(weights)
    for name, weight in weights.items():
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        up = lora.pop(f"{key}.lora_up.weight", None)
        if up is None or not name.endswith(".weight"):
            continue
        down, alpha = lora.pop(f"{key}.lora_down.weight"), lora.pop(f"{key}.alpha", None)
        scale = 1.0 if alpha is None else alpha.item() / down.shape[0]
        found[name] = weight + scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        dora_scale = lora.pop(f"{key}.dora_scale", None)
        if dora_scale is not None:  # over the norm of the base's rows, where there is one scale for each row
            assert dora_scale.shape == (len(weight), *[1] * (weight.ndim - 1))
            norm = weight.flatten(1).norm(dim=1).reshape(dora_scale.shape)
            found[name] *= dora_scale / (norm + torch.finfo(weight.dtype).eps)
    assert not lora, f"nothing is known by these names: {sorted(lora)}"
    return found


def network(folder: Path, kind: str, out: Path) -> dict[str, torch.Tensor]:
    """A network's weights by the names that ComfyUI has for adapters."""
    if kind in ("sd1", "sd2"):
        return load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    path, _ = export_file(str(folder), "single_file", out / "network.safetensors", "float32", replace=True)
    state = load_file(path)
    return {name.removeprefix(NETWORK): t for name, t in state.items() if name.startswith(NETWORK)}


@pytest.mark.parametrize("kind", PIPELINES)
def test_alpha_over_rank_times_up_times_down_is_the_whole_change(models, tmp_path, kind):
    model = models(kind)
    base, tuned = (network(folder, kind, tmp_path) for folder in (model.base, model.tuned))
    found = patched(base, load_file(model.lora))
    changed = [name for name in base if not torch.equal(base[name], tuned[name])]
    assert len(changed) >= 5
    for name in tuned:
        torch.testing.assert_close(found[name], tuned[name], atol=1e-6, rtol=1e-5)


def test_without_alpha_it_would_be_half_of_it(models, tmp_path):
    model = models("sd1")
    base, tuned = (network(folder, "sd1", tmp_path) for folder in (model.base, model.tuned))
    half = {name: t for name, t in load_file(model.lora).items() if not name.endswith(".alpha")}
    name = "mid_block.attentions.0.proj_in.weight"
    found = patched(base, half)[name]
    torch.testing.assert_close(2 * (found - base[name]), tuned[name] - base[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "stock"),
    [("sd1", StableDiffusionPipeline), ("sd2", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)],
)
def test_diffusers_reads_kohyas_names_and_predicts_what_the_tuned_model_does(models, kind, stock):
    model = models(kind)
    expected, found = (stock.from_pretrained(folder) for folder in (model.tuned, model.base))
    found.load_lora_weights(model.lora)
    found.fuse_lora()
    found.unload_lora_weights()
    expected, found = expected.unet.state_dict(), found.unet.state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def test_the_file_names_rank_alpha_and_architecture_and_is_the_same_bytes_again(models, tmp_path):
    model = models("sdxl")
    paths = [export_file(str(model.tuned), "lora_kohya", tmp_path / f"{i}.safetensors")[0] for i in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safe_open(paths[0], "pt") as file:
        told = file.metadata()
    assert told["ss_network_dim"] == "2" and told["ss_network_alpha"] == "4.0"
    assert told["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    half = load_file(paths[0])
    assert {t.dtype for name, t in half.items() if name.endswith(".weight")} == {torch.float16}
    key = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    assert half[f"{key}.alpha"] == 4 and half[f"{key}.lora_down.weight"].shape == (2, 16)


def test_adapters_of_layers_that_are_one_have_the_ranks_and_alphas_added_up(models):
    lora = load_file(models("sd3").lora)
    key = "lora_unet_joint_blocks_0_x_block_attn_qkv"
    assert lora[f"{key}.lora_down.weight"].shape == (4, 16) and lora[f"{key}.alpha"] == 8
    up = lora[f"{key}.lora_up.weight"]
    assert up.shape == (48, 4)
    assert not up[16:32].any() and up[:16, :2].all() and not up[:16, 2:].any() and up[32:, 2:].all()


def test_a_model_without_adapters_and_one_of_another_kind_are_refused(models, tmp_path):
    model = models("sd1")
    with pytest.raises(ValueError, match=r"has no adapters \(pytorch_lora_weights.safetensors\); a run with"):
        export_file(str(model.base), "lora_kohya", tmp_path / "out.safetensors")
    file = model.base / LORA_FILE
    with safe_open(model.tuned / LORA_FILE, "pt") as opened:
        told = json.loads(opened.metadata()["lora_adapter_metadata"])
    state = load_file(model.tuned / LORA_FILE)
    first = min(state)
    cases = {
        "has use_rslora: lora_kohya holds LoRA, DoRA and LoKr": (state, told | {"unet.use_rslora": True}),
        "has no dora_norm_ratios.safetensors, .* --format single_file": (
            state,
            told | {"unet.use_dora": True},
        ),
        "says no rank and alpha": (state, {}),
        f"has {first}.magnitude: lora_kohya": (state | {f"{first}.magnitude": state[first].clone()}, told),
        "adapters of down_blocks.9, and the network": (
            state | {f"unet.down_blocks.9.lora_{x}.weight": state[first].clone() for x in "AB"},
            told,
        ),
    }
    try:
        for message, (tensors, metadata) in cases.items():
            save_file(tensors, file, {"lora_adapter_metadata": json.dumps(metadata)})
            with pytest.raises(ValueError, match=message):
                export_file(str(model.base), "lora_kohya", tmp_path / "out.safetensors")
        file.write_bytes(b"PK" * 40)
        with pytest.raises(ValueError, match="is no file of adapters"):
            export_file(str(model.base), "lora_kohya", tmp_path / "out.safetensors")
    finally:
        file.unlink()
    assert not list(tmp_path.iterdir())


def test_the_commands_of_the_docs_export_a_run(models, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    page = DOCS / "models.md"
    for block in blocks("yaml", page):
        write_examples(tmp_path, {block[0].removeprefix("# "): "\n".join(block)})
    asked = [shlex.split(line)[1:] for line in next(c for c in commands(page) if "darkroom export" in c[0])]
    result = CliRunner().invoke(app, asked[0])
    assert result.exit_code == 2 and "run sd14-lora has no model yet" in result.output, result.output
    train = tmp_path / "results/runs/sd14-lora/train"
    shutil.copytree(models("sd1").tuned, train / "model")
    manifest = {
        "stage": "train",
        "params": {"a": 1},
        "upstream": {"cache": "ab" * 32},
        "files": {},
        "counts": {},
    }
    (train / "manifest.json").write_text(json.dumps({**manifest, "parts": {}}))
    for arguments in asked:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    with safe_open("sd14-lora.safetensors", "pt") as file:
        told = file.metadata()
    assert told["modelspec.title"].startswith("sd14-lora, ") and told["darkroom.cache_sha256"] == "ab" * 32
    assert len(told["darkroom.train_manifest_sha256"]) == len(told["darkroom.train_params_sha256"]) == 64
    width = yaml.safe_load((tmp_path / "config/runs/demo.yaml").read_text())["draw"]["sampling"]["width_px"]
    assert told["modelspec.resolution"].startswith(f"{width}x")
    assert torch.equal(
        load_file("circles.safetensors")["lora_unet_mid_block_attentions_0_proj_in.alpha"], torch.tensor(4.0)
    )
