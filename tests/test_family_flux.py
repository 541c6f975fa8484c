"""FLUX.1: the same loss, gradients and pictures as diffusers' own classes, with guidance embedding and without."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import copy

import numpy as np
import pytest
import torch
from family_world import (  # noqa: F401 (fixtures)
    CLIP,
    LORA,
    FamilyCases,
    build,
    cached,
    settings_of,
    trained,
    world,
)

from darkroom.config.model import read_model
from darkroom.config.run import Sampling
from darkroom.families.flux import image_ids, pack, unpack
from darkroom.formats.diffusers import load_pipeline
from darkroom.models.families import build_denoiser, check_size, use_attention
from darkroom.sample.model import DrawOptions, load_model
from darkroom.store import read_table
from darkroom.train.data import LatentCache
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan
from darkroom.train.step import Stepper, make_optimizers

SCHNELL = {
    "num_layers": 1,
    "num_single_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "axes_dims_rope": [4, 2, 2],
}
DEV = {**SCHNELL, "guidance_embeds": True}
TESTED = FamilyCases(
    encoders=[
        {"name": "clip-l", "pooled": True, "projected": False, **CLIP},
        {"name": "t5", "max_tokens": 24, "padded": True},
    ],
    cases={
        "flux": ({"params": DEV, "guidance": 3.5}, "FluxPipeline"),
        "flux-schnell": ({"params": SCHNELL}, "FluxPipeline"),
        "flux-lora": (
            {"params": DEV, "lora": {**LORA, "targets": ["to_q", "add_k_proj", "proj_mlp"]}},
            "FluxPipeline",
        ),
    },
    again=["gradient_checkpointing"],
    call={
        "flux": {"max_sequence_length": 24},
        "flux-schnell": {
            "max_sequence_length": 24,
            "guidance_scale": 1.0,
            "true_cfg_scale": 3.0,
            "negative_prompt": ["", ""],
        },
        "flux-lora": {"max_sequence_length": 24},
    },
)
CAPTION = {"long": 1.0}
SMALL = Sampling(num_inference_steps=3, guidance_scale=3.0, width_px=64, height_px=32)


def plain_loss(pipeline, network, latents, noise, timestep, captions, guidance):
    """(B,) losses as a script with diffusers alone has them: rectified flow on packed latents."""
    from diffusers import FluxPipeline

    batch, channels, height, width = latents.shape
    text, pooled, text_ids = pipeline.encode_prompt(captions, captions, max_sequence_length=24)
    image_ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32)
    t = timestep[:, None, None, None]
    noisy = (1 - t) * latents + t * noise
    predicted = network(
        hidden_states=FluxPipeline._pack_latents(noisy, batch, channels, height, width),
        timestep=timestep,
        guidance=torch.full((batch,), guidance) if network.config.guidance_embeds else None,
        pooled_projections=pooled,
        encoder_hidden_states=text,
        txt_ids=text_ids,
        img_ids=image_ids,
        return_dict=False,
    )[0]
    factor = pipeline.vae_scale_factor
    predicted = FluxPipeline._unpack_latents(predicted, height * factor, width * factor, factor)
    return (predicted - (noise - latents)).square().mean(dim=(1, 2, 3))


@pytest.mark.parametrize("case", ["flux", "flux-schnell"])
def test_loss_and_gradients_are_those_of_a_plain_loop_of_diffusers_at_the_same_noise(world, trained, case):
    cache, model = LatentCache(*cached(world, "flux")[0]), trained(case).model
    settings = settings_of("flux", caption_dropout=0.0, encoder_dropout=[], caption_choice=CAPTION)
    denoiser = build_denoiser(model, cache.sizes, seed=0).train()
    with torch.no_grad():
        for number, weight in enumerate(denoiser.parameters()):
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(number))
    network = copy.deepcopy(denoiser.network)
    batch = BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings, 0).make(0)
    stepper = Stepper(denoiser, make_optimizers(denoiser, settings), copy.deepcopy(denoiser), settings)
    losses, timestep = stepper.losses(batch, slice(0, 4))
    losses.mean().backward()
    table = read_table(world.folder / "captions.parquet", ["uid", "caption_long"])
    captions = dict(zip(table["uid"], table["caption_long"], strict=True))
    texts = [captions[f"{int(a):016x}{int(b):016x}"] for a, b in batch.uids]
    pipeline = load_pipeline(trained(case).folder / "model")
    expected = plain_loss(pipeline, network, batch.latents, batch.noise, timestep, texts, 3.5)
    expected.mean().backward()
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert losses.min() > 0.1 and torch.equal(timestep, batch.timestep_normal.sigmoid())
    gradients = dict(network.named_parameters())
    for name, weight in denoiser.network.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name].grad, rtol=1e-5, atol=1e-5)
    assert sum(float(weight.grad.abs().sum()) for weight in gradients.values()) > 1


def test_the_guidance_that_the_network_is_told_changes_its_prediction_where_it_has_a_place_for_it(world):
    cache = LatentCache(*cached(world, "flux")[0])
    batch = BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings_of("flux"), 0).make(0)
    for params, is_told in ((DEV, True), (SCHNELL, False)):
        outputs = []
        for guidance in (1.0, 3.5):
            model = read_model({"family": "flux", "params": params, "guidance": guidance})
            denoiser = build_denoiser(model, cache.sizes, seed=0)
            outputs.append(denoiser(batch.noise, torch.full((4,), 0.5), batch.conditioning))
        assert torch.equal(*outputs) is not is_told


def test_packing_and_places_are_those_of_diffusers():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 16, 6, 10)
    packed = FluxPipeline._pack_latents(latents, 2, 16, 6, 10)
    assert torch.equal(pack(latents), packed) and torch.equal(unpack(packed, 3, 5), latents)
    places = FluxPipeline._prepare_latent_image_ids(2, 3, 5, "cpu", torch.float32)
    assert torch.equal(image_ids(3, 5, latents), places)


def test_an_export_with_guidance_embedding_shifts_by_size_as_dev_does_and_one_without_as_it_was_trained(
    trained,
):
    for case, is_dynamic in (("flux", True), ("flux-schnell", False)):
        pipeline = load_pipeline(trained(case).folder / "model")
        assert pipeline.scheduler.config.use_dynamic_shifting is is_dynamic
        assert type(pipeline.text_encoder).__name__ == "CLIPTextModel"
        pipeline.set_progress_bar_config(disable=True)
        found = []
        for side in (32, 64):
            pipeline("a", width=side, height=side, num_inference_steps=3, max_sequence_length=24)
            found.append(pipeline.scheduler.timesteps.clone())
        assert torch.equal(*found) is not is_dynamic


def test_diffusers_adds_the_file_of_adapters_to_the_base_model_and_has_the_trained_one(trained):
    import diffusers

    folder = trained("flux-lora").folder
    whole = diffusers.FluxPipeline.from_pretrained(folder / "model")
    merged = whole.transformer.state_dict()
    whole.transformer = diffusers.FluxTransformer2DModel.from_pretrained(folder / "untrained/transformer")
    base = copy.deepcopy(whole.transformer.state_dict())
    changed = {name.removesuffix(".weight") for name in base if not torch.equal(base[name], merged[name])}
    assert changed and all(name.endswith(("to_q", "add_k_proj", "proj_mlp")) for name in changed)
    whole.load_lora_weights(folder / "model")
    whole.fuse_lora()
    for name in sorted(changed):
        fused = whole.transformer.get_submodule(name).base_layer.weight
        torch.testing.assert_close(fused, merged[f"{name}.weight"], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("case", ["flux", "flux-schnell"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "euler-stochastic", "dpm++"])
def test_every_sampler_of_a_flow_draws_and_shows_its_steps(trained, case, sampler):
    model, seen = load_model(trained(case).folder / "model", device="cpu"), []
    drawing = DrawOptions(SMALL, sampler=sampler, dtype="float32")

    def watch(first, step, latents):
        seen.append(model.decode(latents))

    pictures = model.draw(["red circle", "a"], [1, 2], drawing, watch)
    assert model.size_step == 8 and pictures.shape == (2, 32, 64, 3) and pictures.std() > 1
    assert len(seen) == (5 if sampler == "heun" else 3)
    assert np.abs(seen[-1].astype(int) - pictures.astype(int)).max() <= 1
    again = model.draw(["a"], [2], drawing)[0].astype(int)
    assert np.abs(again - pictures[1].astype(int)).max() <= 1


def test_our_euler_draws_what_the_exported_scheduler_does(trained):
    for case in ("flux", "flux-schnell"):
        model = load_model(trained(case).folder / "model", device="cpu")
        drawn = [
            model.draw(["red circle"], [1], DrawOptions(SMALL, sampler=name, dtype="float32")).astype(int)
            for name in (None, "euler")
        ]
        assert np.abs(drawn[0] - drawn[1]).max() <= 1


def test_what_one_pass_cannot_do_is_refused(trained):
    told = load_model(trained("flux").folder / "model", device="cpu")
    with pytest.raises(
        ValueError, match="is told its guidance and draws in one pass; leave the negative prompt"
    ):
        told.draw(["a"], [1], DrawOptions(SMALL, negative_prompt="blue"))
    other = load_model(trained("flux-schnell").folder / "model", device="cpu")
    with pytest.raises(
        ValueError, match="guidance rescale: a FluxPipeline does not predict with and without"
    ):
        other.draw(["a"], [1], DrawOptions(SMALL, guidance_rescale=0.7))
    without, negative = (
        other.draw(["a"], [1], DrawOptions(SMALL, negative_prompt=n, dtype="float32")) for n in ("", "blue")
    )
    assert not np.array_equal(without, negative)


def test_attention_runs_on_the_operator_that_is_asked_for_and_that_of_other_networks_stays():
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    for operator, backend in (("flash", "_native_flash"), ("xformers", "xformers")):
        denoiser = build("flux", params=DEV)
        denoiser.family.use_attention(denoiser.network, operator)
        found = {p._attention_backend.value for p in denoiser.network.attn_processors.values()}
        assert found == {backend}
        assert _AttentionBackendRegistry.get_active_backend()[0].value == "native"  # of other networks
    with pytest.raises(ValueError, match="flash needs a GPU"):
        use_attention(denoiser, "flash", torch.device("cpu"), "bfloat16")


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({**DEV, "axes_dims_rope": [4, 2, 4]}, r"axes_dims_rope: \[4, 2, 4\] must be three even numbers"),
        ({"attention_head_dim": 64}, r"axes_dims_rope: \[16, 56, 56\] must be .* attention_head_dim 64"),
        ({**DEV, "out_channels": 64}, "out_channels: follows from the cache; leave it out"),
        (
            {**DEV, "num_layer": 1},
            "FluxTransformer2DModel has no argument 'num_layer'; did you mean 'num_layers'",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params, told):
    with pytest.raises(ValueError, match=told):
        read_model({"family": "flux", "params": params})


def test_odd_latents_are_refused_by_bucket():
    with pytest.raises(ValueError, match="patch_size 2 does not divide the 9x8 latents of bucket 64x72"):
        check_size(build("flux", params=DEV), (4, 9, 8), "bucket 64x72")


@pytest.mark.slow
def test_the_small_run_goes_through_the_whole_chain_to_a_model_that_diffusers_alone_draws_from(
    make_tiny_project,
):
    project = make_tiny_project("flux")
    # Metrics read pictures, whatever drew them: one is enough here, and few steps and pictures are.
    few = {
        "train": {"num_steps": 60, "checkpoint_every_steps": 30},
        "draw": {"max_prompts": 6, "num_pictures_per_prompt": 1, "sampling": {"num_inference_steps": 4}},
        "measure": dict.fromkeys(("geneval", "frechet_clip_distance", "kernel_clip_distance")),
        "evaluate": {"num_bootstrap": 20},
    }
    project.edit("config/runs/flux-tiny.yaml", few)
    project.run("bash", "-ec", "DVC_STAGE=x snakemake --quiet all --config run=flux-tiny")
    run = project.folder / "results/runs/flux-tiny"
    assert (run / "report/report.html").exists()
    loss = read_table(run / "train/history.parquet")["loss"]
    assert loss[-10:].mean() < loss[:3].mean()
    lines = [
        "import sys; sys.modules['darkroom'] = None",
        "import diffusers",
        "pipe = diffusers.FluxPipeline.from_pretrained('results/runs/flux-tiny/train/model')",
        "drawn = pipe('a red circle', width=64, height=96, num_inference_steps=2, max_sequence_length=48)",
        "assert drawn.images[0].size == (64, 96)",
    ]
    project.run("python", "-c", "\n".join(lines))
