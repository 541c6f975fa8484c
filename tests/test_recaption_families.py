"""Captioners of the LLaVA family other than the demo's: any-resolution pictures, other language models."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    Qwen2Config,
)

from darkroom.captioners.llava import Decoding, Llava
from darkroom.components.base import Component
from darkroom_demo.pretrain.captioner import make_processor

PROMPTS = ("Describe the image in detail.", "Describe the image briefly.")


@pytest.fixture(autouse=True)
def one_thread():
    """Arithmetic this small is slower on two threads, far slower where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save_llava_next(folder, text_config):
    """A tiny LLaVA-NeXT: a picture becomes the more tokens the more tiles its shape needs."""
    demo = make_processor()
    pinpoints = [[24, 48], [48, 24], [48, 48]]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 24},
            crop_size={"height": 24, "width": 24},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=demo.tokenizer,
        patch_size=12,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=demo.chat_template,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=24,
        patch_size=12,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text_config,
        image_token_index=demo.image_token_id,
        image_grid_pinpoints=pinpoints,
        image_seq_length=4,
    )
    torch.manual_seed(1)
    model = LlavaNextForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize("family", ["qwen2", "mistral with a sliding window"])
def test_any_resolution_pictures_get_the_texts_of_transformers_generate(tmp_path, family):
    sides = {
        "vocab_size": len(make_processor().tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    text = Qwen2Config(**sides) if family == "qwen2" else MistralConfig(**sides, sliding_window=12)
    save_llava_next(tmp_path, text)
    captioner = Llava(Component(kind="captioner", path=str(tmp_path)), "float32", device="cpu")
    rng = np.random.default_rng(0)
    shapes = [(30, 60), (60, 30), (50, 50), (20, 24)]
    pictures = [Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    head, tails = captioner.requests(PROMPTS)
    inputs = captioner.prepare(pictures, head)
    assert inputs["attention_mask"].sum(1).unique().numel() > 1, "all pictures have as many tokens"
    ours = captioner.generate(inputs, [Decoding(tail, 8) for tail in tails])
    for prompt, answers in zip(PROMPTS, ours, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        request = captioner.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        asked = captioner.processor(images=pictures, text=[request] * 4, padding=True, return_tensors="pt")
        ids = captioner.model.generate(**asked, max_new_tokens=8, do_sample=False)
        theirs = captioner.processor.batch_decode(
            ids[:, asked["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert [answer.text for answer in answers] == [text.strip() for text in theirs]
        assert len(set(theirs)) > 1
