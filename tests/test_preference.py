"""HPSv2.1, PickScore and aesthetic are what their authors' code computes, on small random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_models_clip import saved  # noqa: F401 - a fixture
from test_open_clip import CONTEXT, MEAN, STD, open_clip, write  # noqa: F401 - a fixture
from test_text_rendering import Drawn
from transformers import CLIPModel, CLIPProcessor

from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.measuring.chosen import choose
from darkroom.measuring.measure import measure_folder
from darkroom.metrics.base import Inputs
from darkroom.metrics.table import METRICS

PROMPTS = ["a red circle", "two blue squares", "circle " * 50]
RECORDS = [{"prompt": prompt, "tag": "prompts"} for prompt in PROMPTS]


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def measured(name: str, folder: Path, found: list[np.ndarray]) -> Any:
    inputs = Inputs({"trained": Drawn(found)}, RECORDS, {"mine": Component(kind="clip", path=str(folder))})
    return METRICS[name].measure(METRICS[name].section(clip="mine", batch_size=1), inputs)


def test_hps_is_a_hundred_times_the_cosine_by_open_clip_of_pictures_that_keep_their_shape(
    tmp_path: Path, open_clip: Any
) -> None:
    told, weights = write(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": weights}, tmp_path / "HPS_v2.1_compressed.pt")
    theirs = open_clip.model.CLIP(**told, output_dict=True).eval()
    theirs.load_state_dict(weights)
    # The first as it is; of the others black is added to what stays as it is.
    found = pictures((32, 32), (32, 20), (14, 32))
    transform = open_clip.image_transform(32, is_train=False, mean=MEAN, std=STD, resize_mode="longest")
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in found])
    rows = load_clip(Component(kind="clip", path=str(tmp_path))).tokenizer(PROMPTS)["input_ids"]
    whole = [row if len(row) <= CONTEXT else [*row[: CONTEXT - 1], row[-1]] for row in rows]
    tokens = torch.tensor([row + [0] * (CONTEXT - len(row)) for row in whole])
    with torch.no_grad():
        outputs = theirs(pixels, tokens)
        expected = torch.diagonal(outputs["image_features"] @ outputs["text_features"].T)
    result = measured("hps_v2_1", tmp_path, found)
    np.testing.assert_allclose(result.table["hps_v2_1"].to_numpy(), 100 * expected.numpy(), atol=1e-3)
    assert result.protocol["clip"]["resize"] == "longer side bicubic to 32 px, rest black"
    assert METRICS["hps_v2_1"].named(result.protocol).label == "HPSv2.1 (mine)"


def test_pickscore_is_the_cosine_times_the_scale_by_transformers(saved: Path) -> None:
    model, processor = CLIPModel.from_pretrained(saved), CLIPProcessor.from_pretrained(saved)
    found = pictures((32, 32), (32, 44), (50, 32))
    with torch.no_grad():
        model.logit_scale.fill_(3.7)
        text = processor(text=PROMPTS, padding=True, truncation=True, max_length=24, return_tensors="pt")
        texts = model.get_text_features(**text).pooler_output
        shown = processor(images=[Image.fromarray(p) for p in found], return_tensors="pt")
        images = model.get_image_features(**shown).pooler_output
        texts, images = (one / torch.norm(one, dim=-1, keepdim=True) for one in (texts, images))
        expected = torch.diagonal(model.logit_scale.exp() * (texts @ images.T))
    other = saved.parent / "pick"
    model.save_pretrained(other)
    processor.save_pretrained(other)
    result = measured("pickscore", other, found)
    np.testing.assert_allclose(result.table["pickscore"].to_numpy(), expected.numpy(), atol=1e-3)
    assert result.protocol["factor"] == pytest.approx(np.exp(3.7), rel=1e-6)
    assert json.dumps(result.protocol) and result.table["pickscore"].n_unique() == 3


def test_aesthetic_is_the_head_on_unit_vectors_of_any_folder_of_pictures_without_prompts(
    tmp_path: Path,
) -> None:
    write(tmp_path / "clip")
    torch.manual_seed(0)
    head = torch.nn.Linear(48, 1)
    (tmp_path / "head").mkdir()
    save_file(head.state_dict(), tmp_path / "head/model.safetensors")
    (tmp_path / "drawn").mkdir()
    found = pictures((32, 32), (40, 60), (64, 33))
    for number, picture in enumerate(found):
        Image.fromarray(picture).save(tmp_path / f"drawn/{number}.png")
    chosen = choose(
        ["aesthetic"], {"clip": str(tmp_path / "clip"), "aesthetic_head": str(tmp_path / "head")}, {}
    )
    result = measure_folder(tmp_path / "drawn", chosen, None, None)
    clip = load_clip(Component(kind="clip", path=str(tmp_path / "clip")))
    with torch.no_grad():
        expected = head(clip.encode_images(found))[:, 0]
    np.testing.assert_allclose(result.table["aesthetic"].to_numpy(), expected.numpy(), atol=1e-5)
    assert result.body["scores"]["aesthetic"] == pytest.approx(float(expected.mean()), abs=1e-5)
    protocol = result.body["protocol"]["aesthetic"]
    assert protocol["head"]["name"] == "head" and protocol["definition"] == "linear head head on clip"
    save_file({"weight": torch.zeros(1, 512), "bias": torch.zeros(1)}, tmp_path / "head/model.safetensors")
    with pytest.raises(ValueError, match="the head head takes 512 dimensions and the CLIP clip gives 48"):
        measure_folder(tmp_path / "drawn", chosen, None, None)
