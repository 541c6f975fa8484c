"""CLIPs as transformers saves them score as transformers' own model does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_components import write_clip, write_tokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from darkroom.components.base import Component
from darkroom.components.clip import load_clip

TEXTS = ["a red circle", "", "circle " * 50]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def save_clip(folder: Path) -> Path:
    """A random CLIP with the GELU of open_clip's, saved as transformers 5 does."""
    size = write_tokenizer(folder / "words")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "words"))
    common = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": size, "max_position_embeddings": 24, "eos_token_id": size - 1, "hidden_act": "gelu"}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**common, **text}, vision_config={**common, "image_size": 32, "patch_size": 8},
        projection_dim=48,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder / "saved")
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder / "saved")
    return folder / "saved"


def load(folder: Path) -> object:
    return load_clip(Component(kind="clip", path=str(folder)))


def test_it_scores_as_transformers_own_processor_and_model_do(saved: Path) -> None:
    scorer = load(saved)
    model, processor = CLIPModel.from_pretrained(saved), CLIPProcessor.from_pretrained(saved)
    inputs = processor(text=TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=24)
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        texts = model.get_text_features(**inputs).pooler_output
        pixels = processor(images=[Image.fromarray(p) for p in noise], return_tensors="pt")
        images = model.get_image_features(**pixels).pooler_output
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(scorer.encode_texts(TEXTS), unit(texts, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(scorer.encode_images(list(noise)), unit(images, dim=-1), atol=1e-4, rtol=0)


def test_texts_that_are_padded_to_the_longest_of_them_are_as_those_padded_to_the_context(saved: Path) -> None:
    clip = load_clip(Component(kind="clip", path=str(saved)))
    texts = ["a red circle", "two blue squares on a plain grey ground", "!", "a " * 200]
    for some in (texts[:3], texts, texts[2:3]):
        whole, short = clip.encode_texts(some), clip.encode_texts(some, pad_whole=False)
        assert torch.allclose(whole, short, atol=1e-5)


def test_files_of_transformers_4_load_as_well(saved: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(saved, older)
    processor = json.loads((older / "processor_config.json").read_text())
    (older / "preprocessor_config.json").write_text(json.dumps(processor["image_processor"]))
    (older / "processor_config.json").unlink()
    (older / "tokenizer.json").unlink()
    write_tokenizer(older)
    config = json.loads((older / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2  # as configurations before 4.31 say, and do not mean
    (older / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(load(older).encode_texts(TEXTS), load(saved).encode_texts(TEXTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "clip_text_model"}'),
            "whole CLIP",
        ),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "processor_config.json").unlink(), "no preprocessor_config.json"),
        (
            lambda folder: (folder / "processor_config.json").write_text('{"image_processor": {}}'),
            "image_mean",
        ),
    ],
)
def test_a_folder_that_lacks_something_is_refused_with_what(saved, tmp_path, change, message) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(saved, broken)
    change(broken)
    with pytest.raises(ValueError, match=message):
        load(broken)


def test_openais_names_win_where_a_configuration_lies_beside_them(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    before = load(folder).encode_texts(TEXTS)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    assert torch.equal(load(folder).encode_texts(TEXTS), before)
