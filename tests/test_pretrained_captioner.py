"""The demo's captioner that the repository carries: is it what it claims to be?"""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import darkroom_demo
from darkroom.captioners.llava import Decoding, Llava
from darkroom.components.base import Component
from darkroom.metrics.geometry import relations
from darkroom.store import sha256_folder
from darkroom_demo.captions import is_right
from darkroom_demo.judge import shapes_are_right
from darkroom_demo.pretrain.captioner import LONG_PROMPTS, SHORT_PROMPTS, train_captioner
from darkroom_demo.pretrain.captioner_data import draw_pool, draw_sample, mirrored, patch_facts
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, RELATIONS, SHAPES, Scene, Thing, sample_scene

FOLDER = Path(darkroom_demo.__file__).parent / "components/captioner"
NUM_SCENES = 120
_NOUN = rf"(?:(?P<color{{0}}>{'|'.join(COLORS)}) )?(?P<shape{{0}}>{'|'.join(SHAPES)})"
_RELATION = re.compile(
    rf"\ba {_NOUN.format(1)} (?P<relation>{'|'.join(RELATIONS)}) a {_NOUN.format(2)}\b", re.IGNORECASE
)
CIRCLE = Thing("circle", "red", 0.25, 0.5, 0.4, 0.0)
TRIANGLE = Thing("triangle", "blue", 0.75, 0.5, 0.4, 0.0)
PAIR = Scene("position", (CIRCLE, TRIANGLE), "plain", "white", 100, 100, 0)


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
def captioner() -> Llava:
    return Llava(Component(kind="captioner", path=str(FOLDER)), "bfloat16", device="cpu")


@pytest.fixture(scope="module")
def described(captioner):
    """Fresh scenes of all sizes, held-out combinations included, with their long and short captions."""
    rng = np.random.default_rng(987_654_321)
    scenes = [sample_scene(rng, held_out=None) for _ in range(NUM_SCENES)]
    return scenes, *caption(captioner, [stored(render(scene)) for scene in scenes])


def caption(captioner, pictures):
    head, tails = captioner.requests([LONG_PROMPTS[0], SHORT_PROMPTS[0]])
    answers = captioner.generate(captioner.prepare(pictures, head), [Decoding(tail, 48) for tail in tails])
    return [[answer.text for answer in kind] for kind in answers]


def relation_is_true(caption: str, scene: Scene) -> bool | None:
    """Whether the relation that a caption claims holds by GenEval's rule; None when it claims none.

    A caption that names things that are not there, or there more than once, is wrong.
    """
    found = _RELATION.search(caption)
    if found is None:
        return None
    boxes = []
    for number in ("1", "2"):
        color, shape = found[f"color{number}"], found[f"shape{number}"].lower()
        things = [t for t in scene.things if t.shape == shape and (not color or t.color == color.lower())]
        if len(things) != 1:
            return False
        boxes.append(things[0].box(scene.width, scene.height))
    return found["relation"].lower() in relations(boxes[0], boxes[1])


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("a red circle left of a blue triangle on a plain white ground", True),
        ("a blue triangle right of a red circle on a plain white ground", True),
        ("a photo of a triangle right of a circle", True),
        ("a photo of a circle above a triangle", False),
        ("a blue circle left of a red triangle", False),
        ("a red circle and a blue triangle on a plain white ground", None),
    ],
)
def test_a_claimed_relation_is_judged_by_where_the_things_are(caption, true):
    assert relation_is_true(caption, PAIR) is true


def test_a_short_caption_may_leave_colours_out_but_not_get_them_wrong():
    assert shapes_are_right("a photo of a circle left of a triangle", PAIR)
    assert shapes_are_right("a red circle and a triangle", PAIR)
    assert not shapes_are_right("a blue circle and a triangle", PAIR)
    assert not shapes_are_right("a photo of a circle", PAIR)
    assert not shapes_are_right("a photo of two circles and a triangle", PAIR)


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
