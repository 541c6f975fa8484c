"""The demo's captioner that the repository carries: is it what it claims to be?"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import darkroom.demo
from darkroom.config.components import Component
from darkroom.demo.captions import is_right
from darkroom.demo.pretrain.captioner import LONG_PROMPTS, SHORT_PROMPTS, train_captioner
from darkroom.demo.pretrain.captioner_data import draw_pool, draw_sample, mirrored, patch_facts
from darkroom.demo.render import render
from darkroom.demo.scenes import COLORS, SHAPES, sample_scene
from darkroom.recaption.captioner import Captioner
from darkroom.recaption.score import relation_is_true, shapes_are_right
from darkroom.store import sha256_folder

FOLDER = Path(darkroom.demo.__file__).parent / "components/captioner"
NUM_SCENES = 120


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Arithmetic this small is slower on two threads, far slower where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stored(picture: np.ndarray) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return Image.open(buffer).convert("RGB")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(Component(kind="captioner", path=str(FOLDER)), "bfloat16", device="cpu")


@pytest.fixture(scope="module")
def described(captioner):
    """Fresh scenes of all sizes, held-out combinations included, with their long and short captions."""
    rng = np.random.default_rng(987_654_321)
    scenes = [sample_scene(rng, held_out=None) for _ in range(NUM_SCENES)]
    return scenes, *caption(captioner, [stored(render(scene)) for scene in scenes])


def caption(captioner, pictures):
    head, tails = captioner.requests([LONG_PROMPTS[0], SHORT_PROMPTS[0]])
    answers = captioner.generate(captioner.prepare(pictures, head), tails, 48)
    return [[answer.text for answer in kind] for kind in answers]


def test_at_least_nine_of_ten_long_captions_name_shapes_colours_and_number(described):
    scenes, long, _ = described
    right = [is_right(text, scene) for text, scene in zip(long, scenes, strict=True)]
    assert np.mean(right) >= 0.9


def test_at_least_nine_of_ten_short_captions_name_shapes_and_number(described):
    scenes, _, short = described
    right = [shapes_are_right(text, scene) for text, scene in zip(short, scenes, strict=True)]
    assert np.mean(right) >= 0.9


def test_relations_that_are_claimed_hold(described):
    scenes, long, short = described
    judged = [
        relation_is_true(text, s) for texts in (long, short) for text, s in zip(texts, scenes, strict=True)
    ]
    claimed = [value for value in judged if value is not None]
    assert len(claimed) >= 30
    assert np.mean(claimed) >= 0.9


def test_photographs_are_told_apart(captioner):
    rng = np.random.default_rng(5)
    drawn = [draw_sample(rng, kinds=("photo",), shares=(1.0,)) for _ in range(30)]
    long, short = caption(captioner, [stored(picture) for picture, *_ in drawn])
    right = [(a, b) == pair for a, b, (_, _, pair, _) in zip(long, short, drawn, strict=True)]
    assert np.mean(right) >= 0.9


def test_it_is_a_llava_checkpoint_of_at_most_eight_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 8_000_000
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == [
        "LlavaForConditionalGeneration"
    ]
    assert (FOLDER / "model.safetensors").exists()
    assert not [path for path in FOLDER.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_transformers_loads_and_asks_it_as_it_does_any_llava():
    processor = AutoProcessor.from_pretrained(FOLDER)
    model = LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    rng = np.random.default_rng(11)
    scene = sample_scene(rng, task="colors", held_out=None)
    content = [{"type": "image"}, {"type": "text", "text": SHORT_PROMPTS[0]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=stored(render(scene)), text=prompt, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    answer = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip().startswith("a photo of a ")


def test_training_twice_gives_the_same_folder(tmp_path):
    for name in ("a", "b"):
        rounds = ((2, 1e-3), (2, 1e-3))
        train_captioner(tmp_path / name, seed=3, rounds=rounds, num_pictures=40, batch_size=8)
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")


def test_a_mirrored_scene_is_the_mirror_image():
    rng = np.random.default_rng(2)
    scene = sample_scene(rng, task="position", held_out=None)
    assert mirrored(mirrored(scene)).things[0].angle == scene.things[0].angle
    for thing, image in zip(scene.things, mirrored(scene).things, strict=True):
        left, _, right, _ = thing.box(scene.width, scene.height)
        assert image.box(scene.width, scene.height)[0] == pytest.approx(scene.width - right)
        assert image.box(scene.width, scene.height)[2] == pytest.approx(scene.width - left)


def test_patch_facts_are_those_of_the_scene():
    pool = draw_pool(60, 96, seed=4, processes=1)
    facts = patch_facts(pool, 8)
    for scene, (colors, shapes, centres, rows, columns) in zip(pool.scenes, facts, strict=True):
        assert (rows[3] == 3).all() and (columns[:, 5] == 5).all()
        if scene is None:
            assert (colors == -100).all()
            continue
        assert centres.sum() == len(scene.things)
        shown = {(c, s) for c, s in zip(colors.ravel(), shapes.ravel(), strict=True) if c}
        assert shown == {(1 + COLORS.index(t.color), 1 + SHAPES.index(t.shape)) for t in scene.things}
