"""Every family: trained by the real stage on a real cache, exported, loaded by diffusers alone, drawn from."""

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_cache import BUCKETS, make, write_part
from test_components import write_vae
from tiny_encoders import (
    CLIP_TOKENS,
    component,
    write_clip_text,
    write_gemma,
    write_modernbert,
    write_t5,
)

from darkroom.cache import cache_null, expected_fingerprint
from darkroom.config.model import read_model
from darkroom.config.run import Cache, Sampling, Train
from darkroom.models.attention import use_attention
from darkroom.models.families import build_denoiser
from darkroom.models.parts import Parts
from darkroom.sample.draw import draw
from darkroom.sample.export import load_pipeline
from darkroom.store import read_table
from darkroom.train.data import LatentCache
from darkroom.train.loader import Loader
from darkroom.train.plan import BatchPlan
from darkroom.train.stage import train
from darkroom.train.step import Stepper, make_optimizers

UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "sample_size": 8,
}
SD3 = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "pos_embed_max_size": 16,
    "sample_size": 8,
}
DIFFUSION = {"prediction": "v", "schedule": "scaled_linear", "zero_terminal_snr": True}
CLIP = {"max_tokens": CLIP_TOKENS, "padded": True}
ENCODERS = {
    "unet-sd": [{"name": "plain", **CLIP}],
    "unet-sdxl": [
        {"name": "plain", "hidden_layer": -2, **CLIP},
        {"name": "clip-g", "hidden_layer": -2, "pooled": True, **CLIP},
    ],
    "sd3": [
        {"name": "clip-l", "hidden_layer": -2, "pooled": True, **CLIP},
        {"name": "clip-g", "hidden_layer": -2, "pooled": True, **CLIP},
        {"name": "t5", "max_tokens": 24, "padded": True},
    ],
    "mmdit": [
        {"name": "gemma", "max_tokens": 20},
        {"name": "modernbert", "max_tokens": 20},
        {"name": "clip-g", "hidden_layer": -2, "max_tokens": CLIP_TOKENS, "pooled": True},
    ],
}
MMDIT = {"num_blocks": 2, "num_heads": 2, "head_dim": 8, "mlp": "swiglu", "text_scale": 0.01,
         "learned_time_scale": True, "checkpoint_attention": True, "checkpoint_mlp": True}  # fmt: skip
LORA = {"rank": 2, "alpha": 4.0}
# Name -> family, model section, what stock diffusers loads it with.
CASES = {
    "unet-sd": ("unet-sd", {"params": UNET}, "StableDiffusionPipeline"),
    "unet-sd-lora": (
        "unet-sd",
        {"params": UNET, "lora": {**LORA, "targets": ["to_q", "to_v", "conv1"]}},
        "StableDiffusionPipeline",
    ),
    "unet-sdxl": (
        "unet-sdxl",
        {"params": {**UNET, "addition_time_embed_dim": 4}, "gradient_checkpointing": True},
        "StableDiffusionXLPipeline",
    ),
    "sd3": ("sd3", {"params": SD3}, "StableDiffusion3Pipeline"),
    "sd3-lora": (
        "sd3",
        {"params": SD3, "lora": {**LORA, "targets": ["to_q", "add_k_proj"]}},
        "StableDiffusion3Pipeline",
    ),
    "sd3-context": (
        "sd3",
        {"params": SD3, "context": {"num_base_tokens": 8, "hidden_dim": 12}},
        "DiffusionPipeline",
    ),
    "mmdit": ("mmdit", MMDIT, "DiffusionPipeline"),
    "mmdit-lora": ("mmdit", {**MMDIT, "lora": {**LORA, "targets": ["qkv", "mlp_gate"]}}, "DiffusionPipeline"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A part of pictures, and the components by name."""
    folder = tmp_path_factory.mktemp("world")
    write_part(folder)
    encoders = {
        "plain": write_clip_text(folder / "plain", 16, None),
        "clip-l": write_clip_text(folder / "clip-l", 16, 8),
        "clip-g": write_clip_text(folder / "clip-g", 12, 12, seed=4),
        "t5": write_t5(folder / "t5", 32),
        "gemma": write_gemma(folder / "gemma", 16),
        "modernbert": write_modernbert(folder / "modernbert", 24),
    }
    components = {name: component(path) for name, path in encoders.items()}
    components["vae"] = component(write_vae(folder / "vae"), "vae")
    return SimpleNamespace(folder=folder, components=components, caches={})


def cached(world, family):
    """The cache of a family's encoders, made once: what `train` takes first, and the parts."""
    if family not in world.caches:
        settings = Cache(
            vae="vae", text_encoders=ENCODERS[family], size_conditioning=True, batch_size=4, dtype="float32"
        )
        vae, encoders = world.components["vae"], [world.components[u.name] for u in settings.encoders]
        make(world.folder, (vae, encoders), settings, out=f"cache-{family}")
        null = world.folder / f"null-{family}.safetensors"
        cache_null(settings, encoders, null)
        shard = world.folder / f"cache-{family}.safetensors"
        expected = expected_fingerprint(settings, vae, encoders)
        world.caches[family] = (
            ([(shard, shard.with_suffix(".parquet"))], null, expected),
            Parts(settings, vae, encoders),
        )
    return world.caches[family]


def settings_of(family, **changes):
    objective = DIFFUSION if family.startswith("unet") else {}
    num = len(ENCODERS[family])
    values = {
        "num_steps": 3, "global_batch_size": 4, "microbatch_size": 4, "learning_rate": 1e-2, "dtype": "float32",
        "encoder_dropout": [0.3] * num, "objective": objective, "num_threads": 1, "log_every_steps": 3,
    }  # fmt: skip
    return Train(**{**values, **changes})


@pytest.fixture(scope="module")
def trained(world):
    """`trained(case)`: the folder of a case after three steps; trained once."""
    done = {}

    def get(case):
        if case not in done:
            family, section, _ = CASES[case]
            inputs, parts = cached(world, family)
            folder = world.folder / case
            lines = []
            out = [folder / name for name in ("model", "untrained", "history.parquet")]
            model = read_model({"family": family, **section})
            train(*inputs, model, settings_of(family), 3, folder / "run", parts, *out, log=lines.append)
            done[case] = SimpleNamespace(folder=folder, lines=lines, parts=parts, model=model)
        return done[case]

    return get


@pytest.mark.parametrize("case", CASES)
def test_three_steps_have_finite_losses_and_the_log_states_the_joint_null_rate(trained, case):
    result = trained(case)
    history = read_table(result.folder / "history.parquet")
    assert history["loss"].len() == 3 and history["loss"].is_finite().all()
    rate = 0.1 + 0.9 * 0.3 ** len(result.parts.text_encoders)
    assert any(f"{rate:.2%} of the samples show no text encoder a caption" in line for line in result.lines)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_one_batch_falls_through_the_real_stepper(world, case):
    family, section, _ = CASES[case]
    inputs, _ = cached(world, family)
    cache, settings = LatentCache(*inputs), settings_of(family, num_steps=40, learning_rate=2e-2)
    denoiser = build_denoiser(read_model({"family": family, **section}), cache.sizes, seed=0)
    with torch.no_grad():
        for name, weight in denoiser.named_parameters():
            # Adapters learn nothing behind the zeros that a network from scratch starts with.
            if "lora" in case and "lora" not in name and not weight.any():
                torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    ema = copy.deepcopy(denoiser).requires_grad_(False)
    stepper = Stepper(denoiser.train(), make_optimizers(denoiser, settings), ema, settings)
    batch = Loader(cache, BatchPlan(0, 4, cache.uids), settings, 0, 0).make(0)
    losses = [float(stepper.step(batch)[0]) for _ in range(15)]
    assert np.isfinite(losses).all() and min(losses[-5:]) < 0.98 * losses[0]


SCRIPT = """
import sys

class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "darkroom":
            raise ModuleNotFoundError("darkroom is not installed here")

sys.meta_path.insert(0, Refuse())
sys.path[:] = [path for path in sys.path if not path.endswith("/src")]
import diffusers
import numpy
import torch

for argument in sys.argv[1:]:
    name, folder, out, length = argument.split(":")
    custom = {"trust_remote_code": True} if name == "DiffusionPipeline" else {}
    pipeline = getattr(diffusers, name).from_pretrained(folder, **custom)
    pipeline.set_progress_bar_config(disable=True)
    longer = {"max_sequence_length": int(length)} if name == "StableDiffusion3Pipeline" else {}
    pictures = {}
    for width, height in ((64, 32), (32, 64)):
        images = pipeline(
            ["red circle", "a"], width=width, height=height, num_inference_steps=2, guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)], output_type="np", **longer,
        ).images
        assert images.shape == (2, height, width, 3) and numpy.isfinite(images).all(), images.shape
        pictures[f"{width}x{height}"] = images
    numpy.savez(out, **pictures)
assert not any(name.split(".")[0] == "darkroom" for name in sys.modules)
"""


def test_diffusers_alone_loads_every_export_and_draws_what_we_draw_at_two_aspect_ratios(trained, tmp_path):
    arguments = [
        f"{name}:{trained(case).folder / 'model'}:{tmp_path / case}.npz:24"
        for case, (_, _, name) in CASES.items()
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    for case in CASES:
        pipeline = load_pipeline(trained(case).folder / "model")
        for width, height in ((64, 32), (32, 64)):
            sampling = Sampling(num_inference_steps=2, guidance_scale=3.0, width_px=width, height_px=height)
            ours = draw(pipeline, ["red circle", "a"], [7, 8], sampling, dtype="float32").astype(int)
            theirs = np.load(tmp_path / f"{case}.npz")[f"{width}x{height}"] * 255
            assert np.abs(ours - theirs).max() <= 1.5, case
            assert ours.std() > 1


@pytest.mark.parametrize("case", ["unet-sd", "unet-sdxl"])
def test_sliced_attention_computes_one_head_of_one_picture_at_a_time_and_the_same_gradients(
    world, case, monkeypatch
):
    cache, model = LatentCache(*cached(world, case)[0]), read_model({"family": case, **CASES[case][1]})
    batch = Loader(cache, BatchPlan(0, 4, cache.uids), settings_of(case), 0, 0).make(0)
    multiply, found, shapes = torch.bmm, [], set()
    monkeypatch.setattr(torch, "bmm", lambda a, b: (shapes.add(len(a)), multiply(a, b))[1])
    for attention in ("sdpa", "sliced"):
        denoiser = build_denoiser(model, cache.sizes, seed=0)
        use_attention(denoiser.network, attention, torch.device("cpu"), "float32")
        shapes.clear()
        denoiser(
            batch.noise, torch.tensor([0.1, 0.4, 0.6, 0.9]), batch.conditioning
        ).square().sum().backward()
        assert shapes == ({1} if attention == "sliced" else set())
        found.append([weight.grad for weight in denoiser.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)  # of gradients up to 1e2


@pytest.mark.parametrize("case", ["unet-sd", "unet-sdxl", "sd3"])
def test_the_cache_holds_what_diffusers_own_pipeline_encodes(world, trained, case):
    """Hidden layers, padding, pooled embeddings and their order: training sees the numbers that drawing sees."""
    inputs, _ = cached(world, case)
    cache = LatentCache(*inputs)
    bucket, uids = next(iter(cache.uids.items()))
    long = np.ones(len(uids), np.int64)
    table = read_table(world.folder / "captions.parquet", ["uid", "caption_long"])
    captions = dict(zip(table["uid"], table["caption_long"], strict=True))
    texts = [captions[f"{int(a):016x}{int(b):016x}"] for a, b in uids]
    found = cache.gather(bucket, np.arange(len(uids)), long).conditioning
    pipeline = load_pipeline(trained(case).folder / "model")
    seen = []
    network = pipeline.unet if case.startswith("unet") else pipeline.transformer
    denoiser = build_denoiser(trained(case).model, cache.sizes, seed=0)

    def watch(*arguments, **options):
        seen.append((arguments, options))
        raise StopIteration

    denoiser.network.forward = watch
    with pytest.raises(StopIteration):
        denoiser(torch.zeros(len(uids), 4, 8, 8), torch.zeros(len(uids)), found)
    options = {"max_sequence_length": 24} if case == "sd3" else {}
    network.forward = watch
    with pytest.raises(StopIteration):
        pipeline(texts, width=32, height=32, num_inference_steps=1, guidance_scale=1.0, **options)
    (ours, ours_options), (_, theirs_options) = seen
    text = ours[1] if case == "sd3" else ours[2]
    torch.testing.assert_close(text, theirs_options["encoder_hidden_states"], atol=1e-5, rtol=1e-4)
    if case == "sd3":
        torch.testing.assert_close(ours[2], theirs_options["pooled_projections"], atol=1e-5, rtol=1e-4)
    if case == "unet-sdxl":
        pooled = theirs_options["added_cond_kwargs"]["text_embeds"]
        torch.testing.assert_close(
            ours_options["added_cond_kwargs"]["text_embeds"], pooled, atol=1e-5, rtol=1e-4
        )
        assert theirs_options["added_cond_kwargs"]["time_ids"].shape == found.time_ids.shape


def test_sdxl_is_told_each_pictures_original_size_crop_and_bucket(world):
    inputs, _ = cached(world, "unet-sdxl")
    cache = LatentCache(*inputs)
    download = {r["uid"]: r for r in read_table(world.folder / "part.parquet").iter_rows(named=True)}
    crops = {r["uid"]: r for r in read_table(world.folder / "buckets.parquet").iter_rows(named=True)}
    seen = set()
    for bucket, uids in cache.uids.items():
        places = np.arange(len(uids))
        time_ids = cache.gather(bucket, places, places * 0).conditioning.time_ids
        for (a, b), ids in zip(uids, time_ids.tolist(), strict=True):
            uid = f"{int(a):016x}{int(b):016x}"
            picture, crop = download[uid], crops[uid]
            assert ids == [
                picture["height"], picture["width"], crop["crop_top"], crop["crop_left"], bucket[1], bucket[0],
            ]  # fmt: skip
            seen.add(tuple(ids))
    assert len(seen) > 3 and BUCKETS.step_px == 8


def test_step_0_with_the_residual_extension_equals_the_base_model_bit_for_bit(world):
    inputs, _ = cached(world, "sd3")
    cache = LatentCache(*inputs)
    base = read_model({"family": "sd3", "params": SD3})
    longer = read_model({"family": "sd3", **CASES["sd3-context"][1]})
    published = read_model(
        {"family": "sd3", "params": SD3, "context": {"form": "mlp", "num_base_tokens": 8, "hidden_dim": 12}}
    )
    settings = settings_of("sd3", encoder_dropout=[])
    batch = Loader(cache, BatchPlan(0, 4, cache.uids), settings, 0, 0).make(0)
    timestep = torch.tensor([0.1, 0.4, 0.6, 0.9])
    outputs = [
        build_denoiser(model, cache.sizes, seed=0)(batch.noise, timestep, batch.conditioning)
        for model in (base, longer, published)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])  # the published form does not leave the base as it was


def test_the_extension_is_trained_kept_exported_and_used_in_drawing(trained, world):
    folder = trained("sd3-context").folder
    start, end = (
        load_pipeline(folder / "model", transformer=folder / "untrained"),
        load_pipeline(folder / "model"),
    )
    assert (start.context.mlp_out.weight == 0).all() and (end.context.mlp_out.weight != 0).any()
    sampling = Sampling(num_inference_steps=2, guidance_scale=2.0, width_px=32, height_px=32)
    short, long = "red circle", "a photo of a red circle and the green star and the blue square"
    with torch.no_grad():
        end.context.mlp_out.weight *= 1e3  # three steps move little
    bent = draw(end, [short, long], [1, 1], sampling, dtype="float32")
    with torch.no_grad():
        end.context.mlp_out.weight.zero_()
        end.context.mlp_out.bias.zero_()
    plain = draw(end, [short, long], [1, 1], sampling, dtype="float32")
    assert not np.array_equal(bent[1], plain[1])


def test_adapters_alone_are_trained_and_their_file_turns_the_base_model_into_the_trained_one(trained):
    import diffusers

    folder = trained("unet-sd-lora").folder
    whole = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model")
    base = diffusers.UNet2DConditionModel.from_pretrained(folder / "untrained" / "unet")
    state, merged = base.state_dict(), whole.unet.state_dict()
    changed = {name for name in state if not torch.equal(state[name], merged[name])}
    assert changed and all(name.endswith(("to_q.weight", "to_v.weight", "conv1.weight")) for name in changed)
    whole.unet = base
    whole.load_lora_weights(folder / "model")
    whole.fuse_lora()
    for name in sorted(changed):
        module, _, _ = name.rpartition(".")
        fused = whole.unet.get_submodule(module)
        torch.testing.assert_close(fused.base_layer.weight, merged[name], atol=1e-6, rtol=1e-4)


def test_going_on_from_an_exported_model_starts_with_its_weights(world, trained):
    for case in ("unet-sd", "sd3", "mmdit"):
        family, section, _ = CASES[case]
        cache = LatentCache(*cached(world, family)[0])
        section = {k: v for k, v in section.items() if k != "params"} | {"family": family, "pretrained": "x"}
        source = component(trained(case).folder / "model", "model")
        network = build_denoiser(read_model(section), cache.sizes, 0, source).network
        exported = load_pipeline(trained(case).folder / "model")
        expected = (exported.unet if family.startswith("unet") else exported.transformer).state_dict()
        assert all(torch.equal(t, expected[name]) for name, t in network.state_dict().items())
        with pytest.raises(ValueError, match=r"model\.pretrained: .* does not fit the cache"):
            build_denoiser(read_model(section), {**cache.sizes, "latent_channels": 16}, 0, source)
