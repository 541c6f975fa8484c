"""ImageReward is what the authors' package computes, on equal random weights; and what is no such component."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyProject, shared_folder
from fetched import installed_package
from PIL import Image
from test_preference import pictures
from test_text_rendering import Drawn
from tiny_features import write_pictures

from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.components.image_reward import load_image_reward
from darkroom.measuring.chosen import choose
from darkroom.measuring.measure import measure_folder
from darkroom.metrics.base import Inputs
from darkroom.metrics.table import METRICS

REFERENCE = Path(__file__).with_name("beside_image_reward.py")
PACKAGES = (
    *("image-reward==1.5", "timm==0.6.13", "transformers==4.40.2", "tokenizers==0.19.1"),
    "huggingface-hub==0.23.5",
)
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "circle",
    "two",
    "blue",
    "square",
    "##s",
    ",",
    "!",
]
PROMPTS = ["a red circle", "Two BLUE squares!", "", "circle " * 50, "[ENC] a café, [SEP] red"]
WIDTH, LAYERS, TEXT_WIDTH, HIDDEN = 128, 2, 768, 96
MED = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": TEXT_WIDTH, "initializer_range": 0.02,
    "intermediate_size": HIDDEN, "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "model_type": "bert",
    "num_attention_heads": 12, "num_hidden_layers": LAYERS, "pad_token_id": 0, "type_vocab_size": 2,
    "vocab_size": len(WORDS) + 2, "encoder_width": 768, "add_cross_attention": True,
}  # fmt: skip


def random_weights() -> dict[str, torch.Tensor]:
    """Tensors of the published checkpoint's names, of a small network."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, scale: float = 0.08) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    def pair(name: str, *shape: int, around: float = 0) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": drawn(*shape) + around, f"{name}.bias": drawn(shape[0])}

    def norm(name: str, width: int) -> dict[str, torch.Tensor]:
        return pair(name, width, around=1)

    vision, text = "blip.visual_encoder", "blip.text_encoder"
    found = {f"{vision}.cls_token": drawn(1, 1, WIDTH), f"{vision}.pos_embed": drawn(1, 197, WIDTH)}
    found |= pair(f"{vision}.patch_embed.proj", WIDTH, 3, 16, 16) | norm(f"{vision}.norm", WIDTH)
    for place in (f"{vision}.blocks.{layer}" for layer in range(LAYERS)):
        found |= norm(f"{place}.norm1", WIDTH) | norm(f"{place}.norm2", WIDTH)
        found |= pair(f"{place}.attn.qkv", 3 * WIDTH, WIDTH) | pair(f"{place}.attn.proj", WIDTH, WIDTH)
        found |= pair(f"{place}.mlp.fc1", 4 * WIDTH, WIDTH) | pair(f"{place}.mlp.fc2", WIDTH, 4 * WIDTH)
    place = f"{text}.embeddings"
    found |= {
        f"{place}.position_ids": torch.arange(MED["max_position_embeddings"])[None],
        f"{place}.word_embeddings.weight": drawn(MED["vocab_size"], TEXT_WIDTH),
        f"{place}.position_embeddings.weight": drawn(MED["max_position_embeddings"], TEXT_WIDTH),
        **norm(f"{place}.LayerNorm", TEXT_WIDTH),
    }
    for place in (f"{text}.encoder.layer.{layer}" for layer in range(LAYERS)):
        for attention, seen in (("attention", TEXT_WIDTH), ("crossattention", WIDTH)):
            for part, width in (("query", TEXT_WIDTH), ("key", seen), ("value", seen)):
                found |= pair(f"{place}.{attention}.self.{part}", TEXT_WIDTH, width)
            found |= pair(f"{place}.{attention}.output.dense", TEXT_WIDTH, TEXT_WIDTH)
            found |= norm(f"{place}.{attention}.output.LayerNorm", TEXT_WIDTH)
        found |= pair(f"{place}.intermediate.dense", HIDDEN, TEXT_WIDTH)
        found |= pair(f"{place}.output.dense", TEXT_WIDTH, HIDDEN)
        found |= norm(f"{place}.output.LayerNorm", TEXT_WIDTH)
    found |= pair("blip.vision_proj", 256, WIDTH) | pair("blip.text_proj", 256, TEXT_WIDTH)
    sides = (TEXT_WIDTH, 1024, 128, 64, 16, 1)
    for place, wide, narrow in zip((0, 2, 4, 6, 7), sides, sides[1:], strict=False):
        found |= pair(f"mlp.layers.{place}", narrow, wide)
    return found


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return random_weights()


def write(folder: Path, weights: Any, name: str = "ImageReward.pt") -> Component:
    folder.mkdir(exist_ok=True)
    torch.save(weights, folder / name)
    (folder / "med_config.json").write_text(json.dumps(MED))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return Component(kind="image_reward", path=str(folder))


@pytest.fixture
def component(weights: dict[str, torch.Tensor], tmp_path: Path) -> Component:
    return write(tmp_path / "reward", weights)


FOUND = pictures((224, 224), (300, 240), (100, 331), (227, 225), (40, 30))


def test_rewards_are_those_of_the_authors_package(
    weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    place = installed_package(PACKAGES[0], shared_folder(tmp_path_factory), *PACKAGES[1:])
    component = write(tmp_path / "reward", weights, "state.pt")
    folder = Path(component.path)
    cases = []
    for number, (picture, prompt) in enumerate(zip(FOUND, PROMPTS, strict=True)):
        Image.fromarray(picture).save(folder / f"{number}.png")
        cases.append([f"{number}.png", prompt])
    (folder / "cases.json").write_text(json.dumps(cases))
    small = {"embed_dim": WIDTH, "depth": LAYERS, "num_heads": WIDTH // 64}
    (folder / "small.json").write_text(json.dumps(small))
    paths = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(REFERENCE), str(folder)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    expected = json.loads((folder / "rewards.json").read_text())
    (folder / "state.pt").rename(folder / "ImageReward.pt")
    check_component(component)
    records = [{"prompt": prompt, "tag": "prompts"} for prompt in PROMPTS]
    inputs = Inputs({"trained": Drawn(FOUND)}, records, {"mine": component})
    metric = METRICS["image_reward"]
    result = metric.measure(metric.section(weights="mine", batch_size=2), inputs)
    found = result.table["image_reward"].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.ptp(expected) > 0.05
    assert metric.named(result.protocol).label == "ImageReward (mine)"
    assert result.protocol["image_reward"]["resize"] == "shorter side bicubic to 224 px, centre crop"
    assert len(result.protocol["image_reward"]["sha256"]) == 64


def test_a_reward_is_of_the_picture_and_of_the_prompt_whatever_is_beside_them(component: Component) -> None:
    network = load_image_reward(component)
    one = network.rewards(FOUND[:1], PROMPTS[:1])
    both = network.rewards([FOUND[0], FOUND[1], FOUND[0]], [PROMPTS[0], PROMPTS[0], PROMPTS[1]])
    torch.testing.assert_close(one[0], both[0], rtol=1e-4, atol=1e-5)
    assert (both[1:] - both[0]).abs().min() > 1e-3
    assert torch.equal(network.rewards(FOUND[:1], ["a RED circle"]), one)


def test_a_folder_with_prompts_is_measured(component: Component, tmp_path: Path) -> None:
    drawn = write_pictures(tmp_path / "drawn", FOUND)
    (tmp_path / "prompts.csv").write_text("file,prompt\n003.png,a red circle\n001.png,two squares\n")
    chosen = choose(["image_reward"], {"image_reward": component.path}, {"batch_size": 1})
    result = measure_folder(drawn, chosen, None, tmp_path / "prompts.csv")
    network = load_image_reward(component)
    expected = [
        network.rewards([FOUND[k]], [text]).item() for k, text in ((1, "two squares"), (3, "a red circle"))
    ]
    scored = result.table.filter(result.table["image_reward"].is_not_null())
    assert scored["file"].to_list() == ["001.png", "003.png"]
    assert scored["image_reward"].to_list() == pytest.approx(expected, abs=1e-5)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_what_is_no_image_reward_is_refused_by_name_and_runs_no_code(
    weights: dict[str, torch.Tensor], component: Component, tmp_path: Path
) -> None:
    path = Path(component.path) / "ImageReward.pt"

    def refused(state: Any, told: str) -> None:
        torch.save(state, path)
        with pytest.raises(ValueError, match=told):
            load_image_reward(component)

    lacking = {name: value for name, value in weights.items() if "crossattention.self.key" not in name}
    refused(lacking, "ImageReward.pt: are no weights of ImageReward: lacks .*crossattention.self.key")
    refused(
        {**weights, "blip.visual_encoder.norm.bias": torch.zeros(3)}, "size mismatch for post_layernorm.bias"
    )
    refused(
        {"conv.weight": torch.zeros(3)},
        "are no weights of ImageReward: lacks 'blip.visual_encoder.pos_embed'",
    )
    headless = {name: value for name, value in weights.items() if not name.startswith("mlp.layers.7")}
    refused(headless, r"mlp\.layers\.\* do not end in one number")
    refused({"a": Harmful(tmp_path / "done")}, "ImageReward.pt: is no file of tensors alone")
    path.write_bytes(pickle.dumps(Harmful(tmp_path / "done"), protocol=2))
    with pytest.raises(ValueError, match=r"ImageReward\.pt: is no file of tensors alone"):
        load_image_reward(component)
    assert not (tmp_path / "done").exists()
    torch.save(weights, path)
    (path.parent / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    with pytest.raises(ValueError, match=r"vocab\.txt: has 6 words, the weights are for 14: take that of"):
        load_image_reward(component)
    (path.parent / "med_config.json").write_text('{"hidden_size": 768}')
    with pytest.raises(
        ValueError, match=r"med_config\.json: is not the med_config\.json of ImageReward: KeyError"
    ):
        load_image_reward(component)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no ImageReward.pt or model.safetensors.*zai-org/ImageReward"):
        check_component(component)


@pytest.mark.slow
def test_a_plan_says_where_its_weights_are_to_be_had(make_tiny_project: Callable[[str], TinyProject]) -> None:
    project = make_tiny_project("without-rewards")
    project.edit("config/runs/demo.yaml", {"measure": {"image_reward": {"weights": "image-reward"}}})
    output = project.run(sys.executable, "-m", "snakemake", "-n", "measure", check=False)
    told = "$IMAGE_REWARD: the environment variable IMAGE_REWARD is not set; export IMAGE_REWARD=FOLDER"
    where = "it is to be had from https://huggingface.co/zai-org/ImageReward"
    assert f"config/components.yaml: image-reward: path: {told}; {where}" in output, output
    assert "rule measure_metric" not in output
