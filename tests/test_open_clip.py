"""CLIPs as open_clip saves them: open_clip's own embeddings on equal random weights, and what does not fit."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_components import write_tokenizer

from darkroom.components.base import PAD, Component
from darkroom.components.check import check_component
from darkroom.components.clip import ClipScorer, load_clip

PACKAGE = "open-clip-torch==3.3.0"
CONTEXT = 24
TEXTS = ["a red circle", "", "circle " * 50, "two blue squares"]
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


@pytest.fixture(scope="session")
def open_clip(unpacked: Callable[[str], Path]) -> Iterator[Any]:
    """The library, which is no dependency of ours; it computes with our PyTorch."""
    place = str(unpacked(PACKAGE))
    sys.path.insert(0, place)
    try:
        import open_clip

        yield open_clip
    finally:
        sys.path.remove(place)


def config(vocabulary: int, quick_gelu: bool = False, **vision: Any) -> dict[str, Any]:
    """As ViT-H-14's: its vision heads do not follow from the width."""
    tower = {"image_size": 32, "layers": 2, "width": 160, "head_width": 80, "patch_size": 8, **vision}
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 64, "heads": 2, "layers": 3}
    model = {"embed_dim": 48, "vision_cfg": tower, "text_cfg": text}
    return {**model, "quick_gelu": True} if quick_gelu else model


def random_weights(told: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of open_clip's names and shapes, that are like no others."""
    vision, text = told["vision_cfg"], told["text_cfg"]
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int, scale: float = 0.1) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    def pair(name: str, *shape: int, around: float = 0) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": drawn(*shape) + around, f"{name}.bias": drawn(shape[0])}

    def blocks(prefix: str, width: int, layers: int) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for place in (f"{prefix}.resblocks.{layer}" for layer in range(layers)):
            found |= pair(f"{place}.ln_1", width, around=1) | pair(f"{place}.ln_2", width, around=1)
            found |= {f"{place}.attn.in_proj_weight": drawn(3 * width, width)}
            found |= {f"{place}.attn.in_proj_bias": drawn(3 * width)} | pair(
                f"{place}.attn.out_proj", width, width
            )
            found |= pair(f"{place}.mlp.c_fc", 4 * width, width) | pair(
                f"{place}.mlp.c_proj", width, 4 * width
            )
        return found

    side, patch = vision["image_size"], vision["patch_size"]
    return {
        "positional_embedding": drawn(text["context_length"], text["width"]),
        "text_projection": drawn(text["width"], told["embed_dim"]),
        "logit_scale": torch.tensor(4.5),
        "visual.class_embedding": drawn(vision["width"]),
        "visual.positional_embedding": drawn((side // patch) ** 2 + 1, vision["width"]),
        "visual.proj": drawn(vision["width"], told["embed_dim"]),
        "visual.conv1.weight": drawn(vision["width"], 3, patch, patch),
        **pair("visual.ln_pre", vision["width"], around=1),
        **blocks("visual.transformer", vision["width"], vision["layers"]),
        **pair("visual.ln_post", vision["width"], around=1),
        **blocks("transformer", text["width"], text["layers"]),
        "token_embedding.weight": drawn(text["vocab_size"], text["width"]),
        **pair("ln_final", text["width"], around=1),
    }


def write(
    folder: Path, quick_gelu: bool = False, **vision: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A folder as open_clip pushes it to the hub; its configuration of the model, and its weights."""
    model = config(write_tokenizer(folder), quick_gelu, **vision)
    told = {"model_cfg": model, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    weights = random_weights(model)
    save_file(weights, folder / "open_clip_model.safetensors")
    return model, weights


def load(folder: Path) -> ClipScorer:
    found = Component(kind="clip", path=str(folder))
    check_component(found)
    return load_clip(found)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_embeddings_are_open_clips_own_on_equal_random_weights(
    tmp_path: Path, open_clip: Any, quick_gelu: bool
) -> None:
    told, weights = write(tmp_path, quick_gelu)
    theirs = open_clip.model.CLIP(**told).eval()
    theirs.load_state_dict(weights)
    scorer = load(tmp_path)
    rows = scorer.tokenizer(TEXTS)["input_ids"]
    rows = [row if len(row) <= CONTEXT else [*row[: CONTEXT - 1], row[-1]] for row in rows]
    tokens = torch.tensor([row + [0] * (CONTEXT - len(row)) for row in rows])
    noise = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        texts, pictures = theirs.encode_text(tokens), theirs.encode_image(noise)
        ours = scorer.towers.encode_text(tokens), scorer.towers.encode_image(noise)
        unit = theirs.encode_text(tokens, normalize=True)
    torch.testing.assert_close(ours[0], texts, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1], pictures, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scorer.encode_texts(TEXTS), unit, atol=1e-5, rtol=0)
    torch.testing.assert_close(scorer.towers.model.logit_scale, theirs.logit_scale)
    assert texts.std() > 0.01 and pictures.std() > 0.01


def test_the_activation_is_that_of_the_configuration(tmp_path: Path) -> None:
    write(tmp_path / "gelu")
    write(tmp_path / "quick", quick_gelu=True)
    one, other = (load(tmp_path / name).encode_texts(TEXTS) for name in ("gelu", "quick"))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(48, 48), (64, 40), (30, 51)])
@pytest.mark.parametrize("mode", ["shortest", "longest"])
def test_pictures_come_to_it_as_open_clip_brings_them(
    tmp_path: Path, open_clip: Any, mode: str, size: tuple[int, int]
) -> None:
    write(tmp_path)
    path = tmp_path / "open_clip_config.json"
    told = json.loads(path.read_text())
    told["preprocess_cfg"]["resize_mode"] = mode
    path.write_text(json.dumps(told))
    scorer = load(tmp_path)
    transform = open_clip.image_transform(32, is_train=False, mean=MEAN, std=STD, resize_mode=mode)
    smooth = np.add.outer(np.linspace(0, 120, size[0]), np.linspace(0, 120, size[1]))[..., None] + [0, 8, 15]
    picture = smooth.astype(np.uint8)
    expected = transform(Image.fromarray(picture))
    found = scorer.preprocess(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
    # Of 255; PIL and PyTorch round otherwise.
    assert ((found - expected) * torch.tensor(STD).view(3, 1, 1)).abs().max() * 255 <= 1.01
    assert scorer.takes["mean"] == pytest.approx(MEAN) and (scorer.resize_mode == PAD) == (mode == "longest")


def test_weights_may_lie_in_any_of_open_clips_files_and_in_a_reward_models(tmp_path: Path) -> None:
    _, weights = write(tmp_path)
    first = load(tmp_path).encode_texts(TEXTS)
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "model.safetensors")
    torch.testing.assert_close(load(tmp_path).encode_texts(TEXTS), first)
    (tmp_path / "model.safetensors").unlink()
    halves = {name: tensor.half() for name, tensor in weights.items()}
    for name, content in (
        ("open_clip_pytorch_model.bin", weights),
        ("HPS_v2.1_compressed.pt", {"epoch": 1, "state_dict": halves}),
    ):
        torch.save(content, tmp_path / name)
        torch.testing.assert_close(load(tmp_path).encode_texts(TEXTS), first, atol=5e-3, rtol=0)
        if name.startswith("open"):
            (tmp_path / name).unlink()
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"holds HPS_v2.1_compressed.pt and open_clip_model\.\w+; leave one"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("visual.proj"), "lacks visual.proj, which a CLIP of this open_clip_config.json has"),
        (
            lambda w: w.update({"visual.head.weight": torch.ones(2)}),
            "holds visual.head.weight, which a CLIP of",
        ),
        (
            lambda w: w.update({"transformer.resblocks.0.mlp.c_fc.weight": torch.ones(8, 64)}),
            r"transformer.resblocks.0.mlp.c_fc.weight is \(8, 64\), and by .* it should be \(256, 64\)",
        ),
        (
            lambda w: w.update({"visual.transformer.resblocks.2.ln_1.bias": torch.ones(160)}),
            "holds visual.transformer.resblocks.2.ln_1.bias",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], told: str
) -> None:
    _, weights = write(tmp_path)
    change(weights)
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=told):
        load(tmp_path)


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type is 'avg', which is another architecture"),
        ("vision_cfg", {"timm_model_name": "vit"}, "vision_cfg.timm_model_name is 'vit'"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, r"vision_cfg.layers is \[3, 4, 6, 3\], a ResNet's"),
        ("text_cfg", {"hf_model_name": "roberta"}, "text_cfg.hf_model_name is 'roberta'"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg.no_causal_mask is True"),
        ("text_cfg", {"heads": None}, None),
    ],
)
def test_another_architecture_is_refused_by_the_key_that_says_so(
    tmp_path: Path, section: str, change: dict[str, Any], told: str | None
) -> None:
    write(tmp_path)
    path = tmp_path / "open_clip_config.json"
    body = json.loads(path.read_text())
    body["model_cfg"][section] |= change
    if told is None:
        del body["model_cfg"][section]["heads"]
    path.write_text(json.dumps(body))
    with pytest.raises(ValueError, match=told or "text_cfg lacks heads"):
        load(tmp_path)


def test_weights_without_their_configuration_and_files_with_code_are_refused(tmp_path: Path) -> None:
    _, weights = write(tmp_path)
    (tmp_path / "open_clip_config.json").rename(tmp_path / "kept.json")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"has no open_clip_config.json, which belongs to its open_clip_model"
    ):
        load(tmp_path)
    # Under the usual name they look like OpenAI's: a wide one is not, whose heads would be guessed.
    (tmp_path / "open_clip_model.safetensors").unlink()
    wide = random_weights(config(300, width=1280, layers=1))
    save_file(wide, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"visual.proj is of width 1280, and OpenAI's CLIPs are of 1024 at most"
    ):
        load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "kept.json").rename(tmp_path / "open_clip_config.json")
    torch.save({"state_dict": weights, "args": Path("code")}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"open_clip_pytorch_model.bin: is no file of tensors alone"):
        load(tmp_path)
