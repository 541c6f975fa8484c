"""Exports of DoRA, LoKr and ranks that differ: what each reader adds to the base model is what was trained."""

import json
import os
import subprocess
import sys

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, UNet2DConditionModel
from doc_pages import ROOT
from format_models import PIPELINES
from safetensors import safe_open
from safetensors.torch import load_file
from test_format_lora_kohya import exported, network, patched

from darkroom.export import export_file
from darkroom.formats.lora_files import DORA_FILE, LORA_FILE

# "to_q" is also the end of a longer one, which counts where both fit.
PATTERNS = {
    "rank_pattern": {"to_q": 3, "attn1.to_q": 1, "to_v": 4},
    "alpha_pattern": {"to_v": 1.0},
}
OPTIONS = {
    "lokr": {"method": "lokr", "rank": 1, "rank_pattern": {"to_v": 8}, "alpha_pattern": {"conv1": 1.0}},
    "dora": {"method": "dora"},
    "patterns": PATTERNS,
    "both": {"method": "dora", "rank_pattern": {"to_q": 3, "to_v": 1}, "alpha_pattern": {"to_v": 1.0}},
}
CASES = [
    *(("dora", kind) for kind in PIPELINES),
    *(("patterns", kind) for kind in ("sd1", "sdxl")),
    *(("both", kind) for kind in ("sd3", "flux")),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(name, kind)`: see `exported`."""
    done = {}

    def get(name, kind):
        if (name, kind) not in done:
            done[name, kind] = exported(tmp_path_factory.mktemp(kind), kind, **OPTIONS[name])
        return done[name, kind]

    return get


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_comfyui_makes_of_the_base_model_is_the_tuned_one(models, tmp_path, name, kind):
    model = models(name, kind)
    base, tuned = (network(folder, kind, tmp_path) for folder in (model.base, model.tuned))
    found = patched(base, load_file(model.lora))
    assert sum(not torch.equal(base[name], tuned[name]) for name in base) >= 5
    for name in tuned:
        torch.testing.assert_close(found[name], tuned[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "stock", "part"),
    [
        ("dora", "sd1", StableDiffusionPipeline, "unet"),
        ("patterns", "sd1", StableDiffusionPipeline, "unet"),
        ("both", "sd3", StableDiffusion3Pipeline, "transformer"),
    ],
)
def test_diffusers_reads_its_own_form(models, name, kind, stock, part):
    model = models(name, kind)
    expected, found = (stock.from_pretrained(folder) for folder in (model.tuned, model.base))
    found.load_lora_weights(model.tuned / LORA_FILE)
    found.fuse_lora()
    found.unload_lora_weights()
    expected, found = getattr(expected, part).state_dict(), getattr(found, part).state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_lokr_by_lycoris_names_is_the_kronecker_product_that_was_trained(models, tmp_path, kind):
    model = models("lokr", kind)
    base, tuned = (network(folder, kind, tmp_path) for folder in (model.base, model.tuned))
    lora = load_file(model.lora)
    assert any(name.endswith("lokr_w2") for name in lora) and any(name.endswith("lokr_w2_a") for name in lora)
    for name, weight in base.items():
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        first = lora.pop(f"{key}.lokr_w1", None) if name.endswith(".weight") else None
        if first is None:
            assert torch.equal(weight, tuned[name])
            continue
        second, alpha = lora.pop(f"{key}.lokr_w2", None), lora.pop(f"{key}.alpha")
        scale = 1.0
        if second is None:
            a, b = lora.pop(f"{key}.lokr_w2_a"), lora.pop(f"{key}.lokr_w2_b")
            second, scale = a @ b, alpha.item() / len(b)
        change = torch.einsum("ij,km->ikjm", first, second.flatten(1)).reshape(weight.shape)
        assert change.any()
        torch.testing.assert_close(weight + scale * change, tuned[name], atol=1e-6, rtol=1e-5)
    assert not lora


LYCORIS = """
import sys
from diffusers import UNet2DConditionModel
from lycoris.modules import get_module, make_module
from safetensors.torch import load_file
import torch

base, tuned, lora = sys.argv[1:]
state, num = load_file(lora), 0
base, tuned = (UNet2DConditionModel.from_pretrained(f"{path}/unet") for path in (base, tuned))
for name, layer in base.named_modules():
    kind, values = get_module(state, key := "lora_unet_" + name.replace(".", "_"))
    if kind is None:
        continue
    assert kind.__name__ == "LokrModule", kind
    # As its passes add it; get_diff_weight of 4.1.3 multiplies by alpha / rank twice.
    change = make_module(kind, values, key, layer).get_weight(layer.weight.shape)
    torch.testing.assert_close(layer.weight + change, tuned.get_submodule(name).weight, atol=1e-6, rtol=1e-5)
    num += 1
assert num == sum(name.endswith(".alpha") for name in state) > 20, num
"""


def test_lycoris_reads_them_as_that(models):
    sys.path.insert(0, str(ROOT / "speed"))
    try:
        import peers
    finally:
        sys.path.remove(str(ROOT / "speed"))
    try:
        folder = peers.folder("lycoris")
    except peers.NotHad as error:
        pytest.skip(str(error))
    model = models("lokr", "sd1")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", LYCORIS, *map(str, (model.base, model.tuned, model.lora))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_network_of_diffusers_reads_lokr_from_the_folder(models):
    model = models("lokr", "sd1")
    expected, found = (UNet2DConditionModel.from_pretrained(f / "unet") for f in (model.tuned, model.base))
    found.load_lora_adapter(model.tuned, weight_name=LORA_FILE, prefix="unet")
    found.fuse_lora()
    found.unload_lora()
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "layer"), [("sd3", "block.attn.qkv"), ("flux", "_attn.qkv")])
def test_lokr_of_what_is_one_layer_in_the_original_is_refused(tmp_path, kind, layer):
    with pytest.raises(
        ValueError, match=rf"is a part of .*{layer} .*--format single_file holds .* lora or dora"
    ):
        exported(tmp_path, kind, method="lokr")


def test_the_files_say_rank_and_alpha_of_each_layer(models):
    model = models("patterns", "sd1")
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    lora = load_file(model.lora)
    ranks = {n: len(lora[f"{key}_{n}.lora_down.weight"]) for n in ("attn1_to_q", "attn2_to_q", "attn1_to_v")}
    assert ranks == {"attn1_to_q": 1, "attn2_to_q": 3, "attn1_to_v": 4}
    assert [lora[f"{key}_{n}.alpha"] for n in ("attn1_to_q", "attn1_to_v", "attn1_to_out_0")] == [4, 1, 4]
    with safe_open(model.lora, "pt") as file:
        told = file.metadata()
    assert told["ss_network_dim"] == told["ss_network_alpha"] == "Dynamic"
    with safe_open(model.tuned / LORA_FILE, "pt") as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert config["unet.r"] == 2 and config["unet.rank_pattern"][name] == 1
    assert set(config["unet.alpha_pattern"].values()) == {1.0}


def test_dora_says_which_tool_reads_it_and_half_precision_keeps_its_scales(models, tmp_path):
    model = models("dora", "sd1")
    (note,) = model.notes
    assert "ComfyUI" in note and "A1111" in note and "--format single_file" in note
    path, _ = export_file(str(model.tuned), "lora_kohya", tmp_path / "half.safetensors")
    half = load_file(path)
    assert {t.dtype for name, t in half.items() if name.endswith(".weight")} == {torch.float16}
    scales = {name: t for name, t in half.items() if name.endswith(".dora_scale")}
    assert scales and all(torch.equal(t, load_file(model.lora)[name]) for name, t in scales.items())


def test_dora_without_the_norms_of_its_base_is_refused(models, tmp_path):
    model = models("dora", "sd2")
    norms = model.tuned / DORA_FILE
    kept = norms.read_bytes()
    norms.unlink()
    try:
        with pytest.raises(ValueError, match=r"has no dora_norm_ratios.safetensors, .* --format single_file"):
            export_file(str(model.tuned), "lora_kohya", tmp_path / "out.safetensors")
    finally:
        norms.write_bytes(kept)
