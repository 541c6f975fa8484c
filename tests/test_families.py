"""Every family: trained by the real stage on a real cache, exported, loaded by diffusers alone, drawn from."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shared_folder
from family_cases import CALLS, CASES, ENCODERS, PLAIN
from family_world import cached, settings_of, trained, world  # noqa: F401 (fixtures)
from fetched import installed_package
from safetensors.torch import load_file, save_file
from test_sample_pipeline import draw
from tiny_encoders import component

from darkroom.cache.stage import cache_null
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import load_vae
from darkroom.config.model import read_model
from darkroom.config.run import Cache, Sampling
from darkroom.families import reference
from darkroom.families.sd3 import join_text
from darkroom.families.table import FAMILIES
from darkroom.formats.diffusers import load_pipeline
from darkroom.formats.lora_files import LORA_FILE
from darkroom.models.families import build_denoiser, use_attention
from darkroom.sample.families import make_family_pipeline
from darkroom.sample.schedulers import make_scheduler
from darkroom.store import read_table
from darkroom.store.latents import LatentShard
from darkroom.train.data import LatentCache
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan
from darkroom.train.step import Stepper, make_optimizers


def test_the_table_of_families_in_the_docs_is_in_step_with_their_specs(tmp_path):
    page = (Path(__file__).parents[1] / "docs/models.md").read_text(encoding="utf-8")
    again = "run: python -m darkroom.families.reference docs/models.md"
    assert reference.insert_reference(page) == page, again
    copy = tmp_path / "models.md"
    copy.write_text(f"# Before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n")
    subprocess.run([sys.executable, "-m", "darkroom.families.reference", str(copy)], check=True)
    assert reference.reference_markdown() in copy.read_text() and "\nold\n" not in copy.read_text()
    assert all(f"| `{name}`" in page for name in FAMILIES)
    with pytest.raises(ValueError, match="lacks a line"):
        reference.insert_reference("no markers")


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
    batch = BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings, 0).make(0)
    losses = [float(stepper.step(batch)[0]) for _ in range(15)]
    assert np.isfinite(losses).all() and min(losses[-5:]) < 0.98 * losses[0]


OLDER = ("diffusers==0.33.1", "transformers==4.51.3", "tokenizers==0.21.1", "huggingface-hub==0.30.2")
SCRIPT = """
import json
import sys
from pathlib import Path

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
    name, folder, out, call = argument.split(":", 3)
    custom = {"trust_remote_code": True} if name == "DiffusionPipeline" else {}
    pipeline = getattr(diffusers, name).from_pretrained(folder, **custom)
    pipeline.set_progress_bar_config(disable=True)
    pictures = {}
    for width, height in ((64, 32), (32, 64)):
        images = pipeline(
            ["red circle", "a"], width=width, height=height, num_inference_steps=2,
            generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)], output_type="np",
            **{"guidance_scale": 3.0, **json.loads(call)},
        ).images
        assert images.shape == (2, height, width, 3) and numpy.isfinite(images).all(), images.shape
        pictures[f"{width}x{height}"] = images
    numpy.savez(out, **pictures)
assert not any(name.split(".")[0] == "darkroom" for name in sys.modules)
"""


def drawn_elsewhere(trained, cases, folder, **variables):
    """What a script with diffusers and without darkroom draws with the exports of cases, into `folder`."""
    arguments = [
        f"{name}:{trained(case).folder / 'model'}:{folder / case}.npz:{json.dumps(CALLS[case])}"
        for case, name in cases.items()
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    environment |= {"HF_MODULES_CACHE": str(folder / f"modules-{min(cases)}"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    for case in cases:
        pipeline = load_pipeline(trained(case).folder / "model")
        for width, height in ((64, 32), (32, 64)):
            sampling = Sampling(num_inference_steps=2, guidance_scale=3.0, width_px=width, height_px=height)
            ours = draw(pipeline, ["red circle", "a"], [7, 8], sampling, dtype="float32").astype(int)
            theirs = np.load(folder / f"{case}.npz")[f"{width}x{height}"] * 255
            assert np.abs(ours - theirs).max() <= 1.5, case
            assert ours.std() > 1


def test_diffusers_alone_loads_every_export_and_draws_what_we_draw_at_two_aspect_ratios(trained, tmp_path):
    drawn_elsewhere(trained, {case: name for case, (_, _, name) in CASES.items()}, tmp_path)


@pytest.mark.real
def test_diffusers_and_transformers_of_early_2025_load_every_export_and_draw_the_same(
    trained, tmp_path, tmp_path_factory
):
    older = installed_package(OLDER[0], shared_folder(tmp_path_factory), *OLDER[1:])
    # Adapters are merged: their exports are of the same form.
    cases = {case: CASES[case][2] for case in (*PLAIN, "sd3-context")}
    own = [case for case, name in cases.items() if name == "DiffusionPipeline"]
    stock = {case: name for case, name in cases.items() if case not in own}
    # That diffusers calls the code of every folder by one name, and so runs that of one in a process.
    for together in (stock, *({case: cases[case]} for case in own)):
        drawn_elsewhere(trained, together, tmp_path, PYTHONPATH=str(older))


@pytest.mark.parametrize("case", [n for n, f in FAMILIES.items() if "sliced" in f.attentions])
def test_sliced_attention_computes_one_head_of_one_picture_at_a_time_and_the_same_gradients(
    world, case, monkeypatch
):
    cache, model = LatentCache(*cached(world, case)[0]), read_model({"family": case, **PLAIN[case]})
    batch = BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings_of(case), 0).make(0)
    multiply, found, shapes = torch.bmm, [], set()
    monkeypatch.setattr(torch, "bmm", lambda a, b: (shapes.add(len(a)), multiply(a, b))[1])
    for attention in ("sdpa", "sliced"):
        denoiser = build_denoiser(model, cache.sizes, seed=0)
        use_attention(denoiser, attention, torch.device("cpu"), "float32")
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
    network = getattr(pipeline, FAMILIES[case].part)
    denoiser = build_denoiser(trained(case).model, cache.sizes, seed=0)

    def watch(*arguments, **options):
        seen.append((arguments, options))
        raise StopIteration

    denoiser.network.forward = watch
    with pytest.raises(StopIteration):
        denoiser(torch.zeros(len(uids), 4, 8, 8), torch.zeros(len(uids)), found)
    network.forward = watch
    with pytest.raises(StopIteration):
        pipeline(texts, width=32, height=32, num_inference_steps=1, guidance_scale=1.0, **CALLS[case])
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


@pytest.mark.parametrize("family", PLAIN)
def test_the_readme_of_an_export_says_how_to_draw_and_with_how_many_t5_tokens(trained, family):
    folder = trained(family).folder / "model"
    text = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert ("max_sequence_length=24" in code and "24 T5 tokens" in text) == (family in ("sd3", "flux"))
    if family == "mmdit":
        assert "trust_remote_code=True" in code
        return
    code = code.replace("THIS FOLDER", str(folder))
    for long, short in (("=512", "=32"), ("steps=28", "steps=1")):
        assert long in code
        code = code.replace(long, short)
    found = {}
    exec(code, found)
    assert found["picture"].size == (32, 32)


@pytest.mark.parametrize(
    ("family", "no_caption"),
    [("unet-sd", "empty"), ("unet-sdxl", "empty"), ("unet-sdxl", "zeros"), ("sd3", "empty")],
)
def test_what_guidance_draws_without_is_the_null_that_training_saw(world, family, no_caption, tmp_path):
    inputs, components = cached(world, family)
    uses = [{**use, "no_caption": no_caption} for use in ENCODERS[family]]
    settings = components.cache.model_copy(
        update={"text_encoders": Cache(vae="x", text_encoders=uses).encoders}
    )
    cache_null(settings, components.text_encoders, tmp_path / "null.safetensors")
    shard = LatentShard(tmp_path / "null.safetensors", None)
    texts = [shard.text("null", place)[None] for place in range(len(uses))]
    pooled = [shard.pooled("null", place) for place, use in enumerate(settings.encoders) if use.pooled]
    section = read_model({"family": family, **PLAIN[family]})
    denoiser = build_denoiser(section, LatentCache(*inputs).sizes, seed=0)
    encoders = [load_text_encoder(component) for component in components.text_encoders]
    scheduler = make_scheduler(settings_of(family), 64 * 64)
    vae = load_vae(components.vae)
    pipeline = make_family_pipeline(denoiser, vae, encoders, settings.encoders, False, scheduler)
    seen = []

    def watch(*arguments, **options):
        seen.append(options)
        raise StopIteration

    denoiser.network.forward = watch
    options = FAMILIES[family].options(pipeline, 1, 3.0, "")
    with pytest.raises(StopIteration):
        pipeline(["red circle"], width=32, height=32, num_inference_steps=1, **options)
    joined = join_text(texts[:-1], texts[-1]) if family == "sd3" else torch.cat(texts, dim=-1)
    torch.testing.assert_close(seen[0]["encoder_hidden_states"][:1], joined, atol=1e-5, rtol=1e-4)
    assert joined.any() == (no_caption == "empty")
    if pooled:
        added = seen[0].get("added_cond_kwargs", {})
        drawn = added.get("text_embeds", seen[0].get("pooled_projections"))
        torch.testing.assert_close(drawn[:1], torch.cat(pooled, dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if "lora" in case])
def test_the_file_of_adapters_has_its_metadata_sorted_so_that_it_is_the_same_bytes_again(trained, case):
    """peft keeps targets in a set and safetensors metadata in a map; both have another order in every process."""
    content = (trained(case).folder / "model" / LORA_FILE).read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert len(metadata) == 2 and list(metadata) == sorted(metadata)
    config = json.loads(metadata["lora_adapter_metadata"])
    (targets,) = (value for name, value in config.items() if name.endswith(".target_modules"))
    assert targets == sorted(CASES[case][1]["lora"]["targets"])


def test_going_on_from_an_exported_model_starts_with_its_weights(world, trained):
    for family, section in PLAIN.items():
        cache = LatentCache(*cached(world, family)[0])
        section = {k: v for k, v in section.items() if k != "params"} | {"family": family, "pretrained": "x"}
        source = component(trained(family).folder / "model", "model")
        network = build_denoiser(read_model(section), cache.sizes, 0, source).network
        exported = load_pipeline(trained(family).folder / "model")
        expected = getattr(exported, FAMILIES[family].part).state_dict()
        assert all(torch.equal(t, expected[name]) for name, t in network.state_dict().items())
        with pytest.raises(ValueError, match=r"model\.pretrained: .* does not fit the cache"):
            build_denoiser(read_model(section), {**cache.sizes, "latent_channels": 16}, 0, source)


@pytest.mark.parametrize("family", ["unet-sd", "mmdit"])
def test_weights_that_lack_some_are_refused_and_no_random_ones_take_their_place(
    world, trained, family, tmp_path
):
    shutil.copytree(trained(family).folder / "model", tmp_path / "model")
    (weights,) = (tmp_path / "model" / FAMILIES[family].part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, weights)
    section = {k: v for k, v in PLAIN[family].items() if k != "params"} | {
        "family": family,
        "pretrained": "x",
    }
    sizes = LatentCache(*cached(world, family)[0]).sizes
    with pytest.raises(ValueError, match=rf"the weights in .* lack {re.escape(lost)}, which would begin as"):
        build_denoiser(read_model(section), sizes, 0, component(tmp_path / "model", "model"))
    with pytest.raises(ValueError, match=rf"the weights lack {re.escape(lost)}"):
        load_pipeline(tmp_path / "model")
