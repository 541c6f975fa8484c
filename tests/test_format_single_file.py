"""One file of a whole pipeline: diffusers' own readers of the original layouts find every tensor in it."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from format_models import PIPELINES, pipeline_of
from safetensors import safe_open
from safetensors.torch import load_file
from sample_folders import ours  # noqa: F401 (a fixture)
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.export import export_file
from darkroom.formats.diffusers import export_pipeline, load_pipeline
from darkroom.formats.original.places import rearranged
from darkroom.formats.original.transformers import flux_places

STOCK = {
    "sd1": StableDiffusionPipeline,
    "sd2": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
    "sd3": StableDiffusion3Pipeline,
    "flux": FluxPipeline,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(kind)`: the exported folder of a random model, its pipeline, and its single file in float32."""
    done = {}

    def get(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            pipeline = pipeline_of(kind, folder)
            exported = export_pipeline(pipeline, folder / "model")
            path, notes = export_file(str(exported), "single_file", folder / "one.safetensors", "float32")
            done[kind] = SimpleNamespace(folder=exported, pipeline=pipeline, path=path, notes=notes)
        return done[kind]

    return get


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def changed(folder: Path, out: Path, part: str, **values) -> str:
    """A copy of a model's folder with other values in a part's configuration."""
    shutil.copytree(folder, out)
    names = {"scheduler": "scheduler_config.json", "tokenizer_3": "tokenizer_config.json"}
    path = out / part / names.get(part, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return str(out)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sd3"])
def test_diffusers_reads_every_tensor_back_from_the_single_file(models, kind):
    model = models(kind)
    read = STOCK[kind].from_single_file(str(model.path), config=str(model.folder), local_files_only=True)
    for part, module in model.pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            expected, found = module.state_dict(), getattr(read, part).state_dict()
            assert expected.keys() == found.keys(), part
            assert all(torch.equal(expected[name], found[name]) for name in expected), part


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("sd1", ["cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"]),
        (
            "sd2",
            ["cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight", "v_pred", "ztsnr"],
        ),
        (
            "sdxl",
            [
                "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
                "conditioner.embedders.1.model.text_projection",
                "model.diffusion_model.label_emb.0.2.bias",
                "model.diffusion_model.input_blocks.5.1.transformer_blocks.1.attn2.to_k.weight",
                "first_stage_model.decoder.up.2.upsample.conv.weight",
                "v_pred",
                "ztsnr",
            ],
        ),
        (
            "sd3",
            [
                "model.diffusion_model.joint_blocks.0.x_block.attn2.ln_k.weight",
                "text_encoders.clip_g.transformer.text_projection.weight",
                "text_encoders.t5xxl.transformer.shared.weight",
                "first_stage_model.encoder.mid.attn_1.proj_out.weight",
            ],
        ),
    ],
)
def test_the_file_has_the_names_that_tools_know_a_model_by(models, kind, wanted):
    names = load_file(models(kind).path)
    assert not [name for name in wanted if name not in names]
    assert ("v_pred" in names) == (kind in ("sd2", "sdxl"))


def test_flux_is_read_back_by_diffusers_at_its_published_width():
    """diffusers' reader knows the width 3072 alone: every weight has its rows here, and one column."""
    width, mlp = 3072, 4 * 3072
    generator = torch.Generator().manual_seed(0)
    rows = {
        **{
            f"time_text_embed.{x}_embedder.linear_{i}": width
            for x in ("timestep", "text", "guidance")
            for i in (1, 2)
        },
        **{"x_embedder": width, "context_embedder": width, "proj_out": 64, "norm_out.linear": 2 * width},
    }
    block = "transformer_blocks.0"
    rows |= {f"{block}.{x}.linear": 6 * width for x in ("norm1", "norm1_context")}
    rows |= {f"{block}.attn.{x}": width for x in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")}
    rows |= {f"{block}.attn.add_{x}_proj": width for x in "qkv"}
    rows |= {
        f"{block}.{ff}.net.{x}": n for ff in ("ff", "ff_context") for x, n in (("0.proj", mlp), ("2", width))
    }
    for i in (0, 1):
        single = f"single_transformer_blocks.{i}"
        rows |= {f"{single}.attn.to_{x}": width for x in "qkv"}
        rows |= {f"{single}.norm.linear": 3 * width, f"{single}.proj_mlp": mlp, f"{single}.proj_out": width}
    state = {f"{name}.weight": torch.rand(n, 1, generator=generator) for name, n in rows.items()}
    state |= {f"{name}.bias": torch.rand(n, generator=generator) for name, n in rows.items()}
    norms = [f"{block}.attn.norm_{x}" for x in ("q", "k", "added_q", "added_k")]
    norms += [f"single_transformer_blocks.{i}.attn.norm_{x}" for i in (0, 1) for x in "qk"]
    state |= {f"{name}.weight": torch.rand(128, generator=generator) for name in norms}
    original = rearranged(state, flux_places({}))
    assert (
        "single_blocks.1.linear1.weight" in original
        and "double_blocks.0.img_attn.norm.key_norm.scale" in original
    )
    found = convert_flux_transformer_checkpoint_to_diffusers(original)
    assert found.keys() == state.keys() and original == {}
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_fluxs_file_holds_its_network_and_what_diffusers_reads_beside_it(models):
    model = models("flux")
    state = load_file(model.path)
    expected = rearranged(model.pipeline.transformer.state_dict(), flux_places({}))
    prefix = "model.diffusion_model."
    network = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    assert network.keys() == expected.keys() and all(torch.equal(network[n], expected[n]) for n in expected)
    vae = convert_ldm_vae_checkpoint(state, model.pipeline.vae.config)
    assert all(torch.equal(vae[name], t) for name, t in model.pipeline.vae.state_dict().items())
    assert "text_encoders.t5xxl.transformer.shared.weight" in state


def test_half_precision_is_the_default_and_the_same_bytes_each_time(models, tmp_path):
    model = models("sdxl")
    paths = [export_file(str(model.folder), "single_file", tmp_path / f"{i}.safetensors")[0] for i in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    half, full = load_file(paths[0]), load_file(model.path)
    markers = {"v_pred", "ztsnr"}
    assert half.keys() == full.keys()
    assert all(torch.equal(half[name], full[name].half()) for name in half.keys() - markers)
    assert {half[name].dtype for name in half.keys() - markers} == {torch.float16}


def test_its_metadata_say_what_it_is_by_modelspec(models):
    found = {kind: metadata_of(models(kind).path) for kind in PIPELINES}
    assert {kind: of["modelspec.architecture"] for kind, of in found.items()} == {
        "sd1": "stable-diffusion-v1",
        "sd2": "stable-diffusion-v2-768-v",
        "sdxl": "stable-diffusion-xl-v1-base",
        "sd3": "stable-diffusion-3",
        "flux": "flux-1-dev",
    }
    assert {kind: of.get("modelspec.prediction_type") for kind, of in found.items()} == {
        "sd1": "epsilon", "sd2": "v", "sdxl": "v", "sd3": None, "flux": None,
    }  # fmt: skip
    header = models("sd2").path.read_bytes()
    names = list(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"])
    assert names == sorted(names) and found["sd2"]["modelspec.title"] == "Stable Diffusion 1.x and 2.x"


def test_who_loads_it_is_told_what_tools_do_not_take_from_the_file(models, tmp_path):
    notes = "\n".join(models("sd2").notes)
    assert "ModelSamplingDiscrete with v_prediction and zsnr" in notes
    assert (
        "unet has cross_attention_dim 16; ComfyUI and A1111 know this architecture with 1024 alone" in notes
    )
    told = "ComfyUI fills prompts up to 77 T5 tokens, and this model's tokenizer_3 to 48: .* min_length 48"
    model = models("sd3")
    assert "T5TokenizerOptions" not in "\n".join(model.notes)
    folder = changed(model.folder, tmp_path / "model", "tokenizer_3", model_max_length=48)
    _, notes = export_file(folder, "single_file", tmp_path / "out.safetensors")
    assert re.search(told, "\n".join(notes))
    assert "ModelSampling" not in "\n".join(models("sd3").notes + models("sdxl").notes + models("sd1").notes)


@pytest.mark.parametrize(
    ("kind", "part", "values", "told"),
    [
        (
            "sdxl",
            "text_encoder_2",
            {"hidden_act": "quick_gelu"},
            "text_encoder_2 has the activation quick_gelu",
        ),
        ("sd1", "vae", {"scaling_factor": 0.5}, "vae has scaling_factor 0.5 and shift_factor 0.0"),
        (
            "sd1",
            "scheduler",
            {"beta_schedule": "linear"},
            "the scheduler has beta_schedule linear; what",
        ),
        ("sd1", "scheduler", {"trained_betas": [0.1] * 1000}, "the scheduler has trained_betas; what"),
        ("sd1", "scheduler", {"prediction_type": "sample"}, "the scheduler has prediction_type sample"),
        ("sd2", "text_encoder", {"num_hidden_layers": 24}, "text_encoder has 24 layers"),
        ("sd1", "unet", {"mid_block_type": "UNetMidBlock2D"}, "knows no blocks UNetMidBlock2D"),
        ("sd1", "unet", {"layers_per_block": [1, 2, 2, 2]}, "knows no layers_per_block"),
    ],
)
def test_what_tools_would_compute_otherwise_is_refused(models, tmp_path, kind, part, values, told):
    folder = changed(models(kind).folder, tmp_path / "model", part, **values)
    with pytest.raises(ValueError, match=told):
        export_file(folder, "single_file", tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_projection_that_readers_of_sd3_do_not_apply_is_refused(models, tmp_path):
    pipeline = load_pipeline(models("sd3").folder)
    with torch.no_grad():
        pipeline.text_encoder.text_projection.weight[0, 1] = 0.5
    folder = export_pipeline(pipeline, tmp_path / "model")
    with pytest.raises(ValueError, match="a projection other than the identity"):
        export_file(str(folder), "single_file", tmp_path / "out.safetensors")


def test_what_is_of_our_own_is_refused_with_what_can_hold_it(ours, models, tmp_path):
    with pytest.raises(ValueError, match="is of the family mmdit: its diffusers folder is what holds it"):
        export_file(str(ours), "single_file", tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=r"lora_kohya holds unet-sd, .*: its diffusers folder, which"):
        export_file(str(ours), "lora_kohya", tmp_path / "out.safetensors")
    shutil.copytree(models("sd3").folder, tmp_path / "longer")
    path = tmp_path / "longer/model_index.json"
    index = json.loads(path.read_text()) | {"_class_name": ["pipeline", "SD3ContextPipeline"]}
    path.write_text(json.dumps(index | {"context": ["context", "ContextExtension"]}))
    with pytest.raises(
        ValueError, match=r"single_file has no place for .*/longer/context, which was trained with"
    ):
        export_file(str(tmp_path / "longer"), "single_file", tmp_path / "out.safetensors")


def test_a_number_too_large_for_half_precision_is_refused(models, tmp_path):
    pipeline = load_pipeline(models("sd1").folder)
    with torch.no_grad():
        pipeline.unet.conv_in.weight[0] = 1e5
    folder = export_pipeline(pipeline, tmp_path / "model")
    with pytest.raises(ValueError, match=r"input_blocks.0.0.weight holds 1e\+05, too large for float16"):
        export_file(str(folder), "single_file", tmp_path / "out.safetensors")
    export_file(str(folder), "single_file", tmp_path / "out.safetensors", "bfloat16")


def test_a_file_that_is_cut_off_is_named(models, tmp_path):
    shutil.copytree(models("sd1").folder, tmp_path / "model")
    weights = tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises((ValueError, OSError), match="model/unet"):
        export_file(str(tmp_path / "model"), "single_file", tmp_path / "out.safetensors")


def test_the_command_says_what_is_wrong_and_replaces_nothing_unasked(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def told(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["export", *arguments])
        assert result.exit_code == 2, result.output
        return result.output

    folder = str(models("sd1").folder)
    assert "--format onnx is none of single_file, lora_kohya, gguf" in told(folder, "--format", "onnx")
    assert "--dtype int8 is none of float16" in told(folder, "--format", "single_file", "--dtype", "int8")
    assert "has no model_index.json" in told(str(tmp_path), "--format", "single_file")
    assert "nowhere is neither a folder nor a run" in told("nowhere", "--format", "single_file")
    assert "should end with .safetensors" in told(folder, "--format", "single_file", "--out", "one.ckpt")
    (tmp_path / "model.safetensors").write_text("mine")
    assert "model.safetensors is there already; give --force" in told(folder, "--format", "single_file")
    assert (tmp_path / "model.safetensors").read_text() == "mine"
    result = CliRunner().invoke(app, ["export", folder, "--format", "single_file", "--force"])
    assert result.exit_code == 0 and "model.safetensors: " in result.output, result.output
    assert "v_pred" not in load_file(tmp_path / "model.safetensors")
