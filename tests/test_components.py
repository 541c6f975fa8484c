"""Components load from folders made on the fly, in the formats that real checkpoints have."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from bounds import assert_same_sums
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel

from darkroom.components import clip, text_encoders
from darkroom.components.base import Component
from darkroom.components.files import fingerprint, read_weights
from darkroom.components.text import without_projection
from darkroom.components.vae import decode_latents, encode_latents, load_vae
from darkroom.families.mmdit import MMDiTModel
from darkroom.models.families import build_denoiser

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from clip.clip import _transform
    from clip.model import CLIP, build_model
    from clip.simple_tokenizer import bytes_to_unicode

MERGES = ["r e", "re d</w>", "c i", "ci r", "c l", "cl e</w>", "cir cle</w>", "a </w>"]
CONTEXT = 24


def write_tokenizer(folder: Path) -> int:
    """A byte-level BPE in OpenAI's order; returns the size of its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    merges = [m for m in MERGES if m != "a </w>"]
    words = [*letters, *(letter + "</w>" for letter in letters), *(m.replace(" ", "") for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return len(words)


def write_clip(folder: Path, seed: int = 0) -> Path:
    """A random CLIP in OpenAI's format: text width 64, image width 64, 32 x 32 pixels."""
    vocabulary = write_tokenizer(folder)
    torch.manual_seed(seed)
    model = CLIP(48, 32, 2, 64, 16, CONTEXT, vocabulary, 64, 1, 3)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    preprocessor = {"crop_size": 32, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def write_vae(folder: Path, shift: float | None = 0.0609) -> Path:
    """A random VAE of factor 4 with 4 latent channels."""
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=1.5305,
        shift_factor=shift,
        mid_block_add_attention=False,
    )
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("components") / "clip")


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory) -> Path:
    return write_vae(tmp_path_factory.mktemp("components") / "vae")


def test_text_encoder_from_openai_weights_equals_clips_own_text_tower(clip_folder):
    encoder = text_encoders.load_text_encoder(Component(kind="text_encoder", path=str(clip_folder)))
    scorer = clip.load_clip(Component(kind="clip", path=str(clip_folder)))
    captions = ["a red circle", "", "two blue squares!"]
    ours = torch.stack([caption.pooled for caption in encoder.encode(captions, CONTEXT)])
    ours = ours / ours.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(ours, scorer.encode_texts(captions), atol=1e-5, rtol=0)
    assert (ours[0] - ours[2]).abs().max() > 1e-2


def test_text_encoder_in_transformers_format_equals_the_converted_one(clip_folder, tmp_path):
    converted = text_encoders.load_text_encoder(Component(kind="text_encoder", path=str(clip_folder)))
    converted.model.save_pretrained(tmp_path / "repository" / "text_encoder")
    write_tokenizer(tmp_path / "repository" / "tokenizer")
    component = Component(kind="text_encoder", path=str(tmp_path / "repository"), subfolder="text_encoder")
    loaded = text_encoders.load_text_encoder(component)
    for a, b in zip(*(e.encode(["a red circle"], CONTEXT) for e in (converted, loaded)), strict=True):
        assert torch.equal(a.hidden, b.hidden) and torch.equal(a.pooled, b.pooled)


def test_without_its_projection_a_text_tower_gives_the_same_states(clip_folder):
    with_projection = text_encoders.load_text_encoder(
        Component(kind="text_encoder", path=str(clip_folder))
    ).model
    plain = without_projection(with_projection)
    assert isinstance(plain, CLIPTextModel)
    tokens = torch.tensor([[3, 1, 2]])
    states = [model(tokens).last_hidden_state for model in (with_projection, plain)]
    assert torch.equal(*states)


def test_clip_scores_with_the_weights_as_stored_and_not_rounded_to_float16(clip_folder):
    scorer = clip.load_clip(Component(kind="clip", path=str(clip_folder)))
    state = read_weights(clip_folder)
    rounded = build_model(dict(state)).float()
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    assert not torch.equal(rounded.state_dict()[name], state[name])
    assert torch.equal(scorer.towers.model.state_dict()[name], state[name])
    assert {p.dtype for p in scorer.towers.model.parameters()} == {torch.float32}


def test_clip_preprocesses_pictures_as_clip_does(clip_folder):
    scorer = clip.load_clip(Component(kind="clip", path=str(clip_folder)))
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((70, 51), Image.Resampling.BICUBIC)
    theirs = _transform(32)(picture)
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    theirs = (theirs * std[:, None, None] + mean[:, None, None] - scorer.mean[0]) / scorer.std[0]
    ours = scorer.preprocess(clip._picture_tensor(picture))[0]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() * 255 * 0.26 < 2.01  # within two of 256 levels


def test_clip_embeds_lists_and_batches_alike_and_normalised(clip_folder):
    scorer = clip.load_clip(Component(kind="clip", path=str(clip_folder)))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), dtype=np.uint8)
    batch = scorer.encode_images(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    assert batch.shape == (5, 48) and batch.dtype == torch.float32
    torch.testing.assert_close(batch.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(batch, scorer.encode_images(list(pictures)))
    torch.testing.assert_close(batch, scorer.encode_images([Image.fromarray(p) for p in pictures]))
    texts = scorer.encode_texts(["a red circle", "circle " * 50])
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(2))


def test_clip_refuses_pictures_that_are_not_uint8(clip_folder):
    scorer = clip.load_clip(Component(kind="clip", path=str(clip_folder)))
    with pytest.raises(ValueError, match="must be uint8"):
        scorer.encode_images(torch.rand(1, 3, 32, 32))


def test_latents_are_the_shifted_and_scaled_mean(vae_folder):
    vae = load_vae(Component(kind="vae", path=str(vae_folder)))
    images = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_latents(vae, images)
    assert latents.shape == (2, 4, 8, 6)
    mean = vae.encode(images).latent_dist.mean
    torch.testing.assert_close(latents, (mean - 0.0609) * 1.5305)
    assert torch.equal(latents, encode_latents(vae, images))
    # Scaled and scaled back, the latents differ in their last bits; the longest sum is a convolution's.
    decoded = decode_latents(vae, latents)
    assert_same_sums(decoded, vae.decode(mean).sample, num_summands=3 * 3 * 16)


def test_a_vae_without_shift_factor_shifts_by_zero(tmp_path):
    vae = load_vae(Component(kind="vae", path=str(write_vae(tmp_path / "vae", shift=None))))
    images = torch.zeros(1, 3, 16, 16)
    torch.testing.assert_close(encode_latents(vae, images), vae.encode(images).latent_dist.mean * 1.5305)


def test_fingerprint_follows_the_files(tmp_path, clip_folder):
    first = write_clip(tmp_path / "a")
    assert fingerprint(Component(kind="clip", path=str(first))) == fingerprint(
        Component(kind="clip", path=str(clip_folder))
    )
    other = write_clip(tmp_path / "b", seed=1)
    fingerprints = {fingerprint(Component(kind="text_encoder", path=str(f))) for f in (first, other)}
    assert len(fingerprints) == 2
    encoder = text_encoders.load_text_encoder(Component(kind="text_encoder", path=str(first)))
    assert encoder.fingerprint in fingerprints


@pytest.mark.parametrize(
    "load, kind, path, message",
    [
        (load_vae, "vae", "components/nowhere/vae", "no folder here"),
        (load_vae, "clip", "components/clip", "is of kind clip, where a vae is needed"),
        (clip.load_clip, "vae", "components/vae", "where a clip is needed"),
        (text_encoders.load_text_encoder, "vae", "components/vae", "where a text_encoder is needed"),
    ],
)
def test_a_wrong_kind_or_path_is_named(load, kind, path, message):
    with pytest.raises(ValueError, match=message):
        load(Component(kind=kind, path=path))


def test_missing_files_are_named(tmp_path, vae_folder):
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        clip.load_clip(Component(kind="clip", path=str(tmp_path)))
    with pytest.raises(ValueError, match="no tokenizer"):
        text_encoders.load_text_encoder(Component(kind="text_encoder", path=str(vae_folder)))
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_vae(Component(kind="vae", path=str(tmp_path)))


def test_initial_weights_are_a_function_of_the_seed_alone():
    settings = MMDiTModel(num_blocks=2, num_heads=2, head_dim=8)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sizes = {"latent_channels": 4, "text_dim": 16, "pooled_dim": 12}
    first = build_denoiser(settings, sizes, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second, third = (build_denoiser(settings, sizes, seed=s) for s in (3, 4))
    weights = [model.network.state_dict()["blocks.0.image.qkv.weight"] for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
