"""The demo world keeps its word: determinism, truth, faults, alt-texts, files."""

import hashlib
import io
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import torch
import warm
from PIL import Image, ImageOps

from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.config import load_project
from darkroom.scorers.perceptual_hash import hashes
from darkroom.scorers.quality import reduced_luma, sharpness
from darkroom_demo.alttexts import alt_text
from darkroom_demo.captions import is_right, long_caption
from darkroom_demo.faults import BY_NAME, FAULTS
from darkroom_demo.layout import count_rows
from darkroom_demo.scenes import Scene, is_held_out, sample_scene, square_of
from darkroom_demo.section import DemoSource
from darkroom_demo.subjects import squared
from darkroom_demo.world import DemoWorld, write_urls

SOURCE = DemoSource(kind="demo", num_scenes=400, num_digits=12, num_photos=12, seed=3)
ROOT = Path(__file__).parents[1]
URL_COLUMNS = ["row", "url", "caption", "similarity", "pwatermark", "punsafe", "width", "height"]


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return DemoWorld(SOURCE)


@pytest.fixture(scope="module")
def tables(world, tmp_path_factory) -> tuple[pl.DataFrame, pl.DataFrame]:
    folder = tmp_path_factory.mktemp("world")
    write_urls(world, folder / "urls.parquet", folder / "truth.parquet")
    return pl.read_parquet(folder / "urls.parquet"), pl.read_parquet(folder / "truth.parquet")


def rows_of(world: DemoWorld, fault: str) -> list:
    return [row for row in world.rows if row.fault == fault]


def opened(world: DemoWorld, row) -> Image.Image:
    image = Image.open(io.BytesIO(world.picture_bytes(row.row)))
    image.load()
    return image


def difference(image: Image.Image, picture: np.ndarray) -> float:
    values = np.asarray(image.convert("RGB"))
    assert values.shape == picture.shape
    return float(np.abs(values.astype(float) - picture).mean())


def fingerprint(world: DemoWorld) -> str:
    digest = hashlib.sha256()
    for row in range(len(world)):
        digest.update(json.dumps([world.list_record(row), world.truth_record(row)]).encode())
        if row % 3 == 0 or world.rows[row].fault:
            digest.update(world.picture_bytes(row))
    return digest.hexdigest()


def test_another_process_makes_the_same_list_and_the_same_bytes(world):
    code = "from test_demo_world import *; print(fingerprint(DemoWorld(SOURCE)))"
    folder = Path(__file__).parent
    environment = warm.jobs.environment(os.environ)
    other = subprocess.run(
        ["python", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == fingerprint(world)


def test_another_seed_makes_another_world(world):
    other = DemoWorld(SOURCE.model_copy(update={"seed": 4}))
    assert {r.url for r in world.rows if r.kind == "scene"}.isdisjoint(r.url for r in other.rows)
    assert [r.kind for r in other.rows] != [r.kind for r in world.rows]


def test_rows_can_be_asked_for_in_any_order(world):
    again = DemoWorld(SOURCE)
    for row in range(60, 0, -7):
        assert again.picture_bytes(row) == world.picture_bytes(row)
        assert again.list_record(row) == world.list_record(row)


def test_the_list_and_the_truth_have_the_agreed_columns(tables, world):
    urls, truth = tables
    assert urls.columns == URL_COLUMNS
    assert truth.columns == [
        "row",
        "kind",
        "fault",
        "expected_status",
        "expected_filter",
        "scene",
        "good_caption",
    ]
    assert urls["row"].to_list() == truth["row"].to_list() == list(range(len(world)))
    assert urls["caption"].null_count() == 0
    for column in ("similarity", "pwatermark", "punsafe", "width", "height"):
        assert 0 < urls[column].null_count() < 0.05 * len(urls)


def test_rows_are_counted_without_drawing_them(world):
    assert count_rows(SOURCE) == len(world)


def test_kinds_are_as_many_as_the_source_says(tables):
    numbers = Counter(tables[1]["kind"].to_list())
    assert (numbers["scene"], numbers["digit"], numbers["photo"]) == (400, 12, 12)


def test_every_fault_is_there_with_its_outcome(tables):
    faults = tables[1].filter(pl.col("kind") == "fault")
    found = {(r["fault"], r["expected_status"], r["expected_filter"]) for r in faults.iter_rows(named=True)}
    assert found == {(f.name, f.expected_status, f.expected_filter) for f in FAULTS}
    rest = tables[1].filter(pl.col("kind") != "fault")
    assert set(rest["expected_status"]) == {"ok"}
    assert set(rest["expected_filter"]) == {"kept"}
    assert rest["fault"].null_count() == len(rest)


def test_faults_of_a_full_world_are_few_and_each_comes_again():
    numbers = {fault.name: fault.num_rows(5_400) for fault in FAULTS}
    assert sum(numbers.values()) <= 0.035 * (5_400 + sum(numbers.values()))
    assert [name for name, number in numbers.items() if number < 2] == ["svg"]
    assert BY_NAME["stall"].num_rows(1_000_000) + BY_NAME["slow_drip"].num_rows(1_000_000) <= 5


@pytest.mark.parametrize("num_scenes", [1, 2, 40])
def test_small_worlds_have_every_fault_and_order_repeats_after_their_originals(num_scenes):
    small = DemoWorld(DemoSource(kind="demo", num_scenes=num_scenes, num_digits=0, num_photos=0, seed=1))
    assert {row.fault for row in small.rows if row.fault} == set(BY_NAME)
    assert Counter(row.kind for row in small.rows)["scene"] == num_scenes
    for row in small.rows:
        if row.original is not None:
            assert row.original < row.row
            assert small.rows[row.original].kind == "scene"


def test_urls_differ_but_for_the_ones_that_repeat_one(world):
    seen: dict[str, int] = {}
    for row in world.rows:
        if row.fault == "same_url":
            assert seen[row.url] == row.original
            assert row.row // 10 == row.original // 10  # so that one part sees both
        else:
            assert row.url not in seen
            seen[row.url] = row.row
            assert row.path is None or world.find(row.path) == row.row


def test_slow_answers_are_asked_for_first(world):
    assert all(row.row < 100 for row in rows_of(world, "stall") + rows_of(world, "slow_drip"))


def test_no_scene_of_the_world_is_held_out(tables):
    scenes = [Scene.from_record(json.loads(text)) for text in tables[1]["scene"].drop_nulls()]
    assert len(scenes) > 400
    assert not any(is_held_out(scene) for scene in scenes)


def test_good_captions_are_right_of_their_scenes(tables):
    for record in tables[1].filter(pl.col("scene").is_not_null()).iter_rows(named=True):
        scene = Scene.from_record(json.loads(record["scene"]))
        assert record["good_caption"] == long_caption(scene)
        assert is_right(record["good_caption"], scene)


def test_about_a_fifth_of_alt_texts_is_right():
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(2000):
        scene = sample_scene(rng, held_out=False)
        nouns = tuple(thing.shape for thing in scene.things)
        right += is_right(alt_text(rng, long_caption(scene), "a photo", nouns, scene)[0], scene)
    assert 0.15 < right / 2000 < 0.23


def test_alt_texts_of_the_world_are_mostly_of_no_use(world, tables):
    joined = tables[0].join(tables[1], on="row").filter(pl.col("kind") == "scene")
    right = [
        is_right(r["caption"], Scene.from_record(json.loads(r["scene"])))
        for r in joined.iter_rows(named=True)
    ]
    assert 0.1 < np.mean(right) < 0.3
    assert "" in joined["caption"].to_list()
    assert sum("Sticker" in text for text in joined["caption"]) > 5
    assert sum(text.lower().endswith(".jpg") for text in joined["caption"]) > 5


def test_scores_follow_the_default_thresholds(tables):
    limits = {c.column: c.max for c in load_project("demo", ROOT).dataset.keep}
    for record in tables[0].join(tables[1], on="row").iter_rows(named=True):
        for score in ("pwatermark", "punsafe"):
            high = record[score] is not None and record[score] > limits[score]
            assert high == (record["expected_filter"] == score), record


def test_pictures_have_the_size_that_the_filter_expects(world):
    for row in world.rows:
        if row.expected_status != "ok":
            continue
        width, height = ImageOps.exif_transpose(opened(world, row)).size
        small, wide = min(width, height) < 64, max(width, height) > 3 * min(width, height)
        assert small == (row.expected_filter == "min_side_px"), row
        assert wide == (row.expected_filter == "max_aspect_ratio"), row


def test_pictures_show_their_subject(world):
    skipped = (
        "visible_watermark",
        "missed_watermark",
        "png_rgba",
        "png_palette",
        "png_grey",
        "png_16bit",
        "too_small",
        "blown_up",
    )
    for row in world.rows[:150]:
        if row.expected_status == "ok" and row.fault not in skipped:
            image = ImageOps.exif_transpose(opened(world, row))
            assert difference(image, world.subject(row.row).draw()) < 6, row


def test_all_eight_exif_orientations_are_upright_when_transposed(world):
    found = []
    for row in rows_of(world, "exif_orientation"):
        image, truth = opened(world, row), world.subject(row.row).draw()
        found.append(image.getexif()[0x0112])
        assert difference(ImageOps.exif_transpose(image), truth) < 6
        if found[-1] != 1:
            stored = np.asarray(image)
            assert stored.shape != truth.shape or difference(image, truth) > 6
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_transparent_pictures_show_their_scene_over_white_and_black_underneath(world):
    for fault in ("png_rgba", "png_palette"):
        for row in rows_of(world, fault):
            image = opened(world, row)
            assert image.mode == ("RGBA" if fault == "png_rgba" else "P")
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            assert difference(Image.alpha_composite(white, rgba), world.subject(row.row).draw()) < 6
            assert np.asarray(rgba)[..., :3][np.asarray(rgba)[..., 3] == 0].max() == 0


def test_modes_and_depths_are_what_the_fault_says(world):
    for row in rows_of(world, "png_16bit"):
        values = cv2.imdecode(np.frombuffer(world.picture_bytes(row.row), np.uint8), cv2.IMREAD_UNCHANGED)
        assert values.dtype == np.uint16
        assert np.array_equal(values[..., ::-1] // 257, world.subject(row.row).draw())
    assert {opened(world, row).mode for row in rows_of(world, "png_grey")} == {"L", "I;16"}
    assert {opened(world, row).mode for row in rows_of(world, "cmyk_jpeg")} == {"CMYK"}
    assert {opened(world, row).format for row in rows_of(world, "webp_named_jpg")} == {"WEBP"}
    assert all(opened(world, row).n_frames == 2 for row in rows_of(world, "animated_gif"))


def test_repeats_repeat_what_they_say(world):
    for row in rows_of(world, "exact_duplicate"):
        assert world.picture_bytes(row.row) == world.picture_bytes(row.original)
        assert row.url != world.rows[row.original].url
    for row in rows_of(world, "square_copy"):
        whole, square = (
            np.asarray(opened(world, world.rows[n]).convert("RGB")) for n in (row.original, row.row)
        )
        side = min(whole.shape[:2])
        top, left = ((n - side) // 2 for n in whole.shape[:2])
        assert square.shape == (side, side, 3) and max(whole.shape) > 1.2 * side
        assert difference(Image.fromarray(square), whole[top : top + side, left : left + side]) < 8
    for row in rows_of(world, "near_duplicate"):
        assert len(world.picture_bytes(row.row)) < len(world.picture_bytes(row.original))
        small = cv2.resize(np.asarray(opened(world, row)), opened(world, world.rows[row.original]).size)
        assert difference(opened(world, world.rows[row.original]), small) < 8


def test_no_two_other_pictures_have_the_same_bytes(world):
    rows = [row for row in world.rows if row.expected_status == "ok" and row.fault != "exact_duplicate"]
    assert len({world.picture_bytes(row.row) for row in rows}) == len(rows)


def test_the_scorers_find_what_is_planted_for_them_and_little_else(world):
    judged = [row for row in world.rows if row.expected_filter in ("kept", "near_duplicate", "sharpness")]
    judged = [row for row in judged if row.expected_status == "ok"]
    images = {row.row: ImageOps.exif_transpose(opened(world, row)) for row in judged}
    least = next(c.min for c in load_project("demo", ROOT).dataset.keep if c.column == "sharpness")
    blurred = {row for row, image in images.items() if sharpness(reduced_luma(as_jpeg(image), 256)) < least}
    planted = {row.row for row in rows_of(world, "blown_up")}
    assert planted <= blurred
    # Yellow on grey of the same luma has no edges for it.
    assert len(blurred - planted) <= 0.005 * len(images)
    found = {row: hashes(image.convert("RGB")) for row, image in images.items()}
    for row in rows_of(world, "near_duplicate"):
        assert bits(found[row.row][0], found[row.original][0]) <= 40
        assert bits(found[row.row][0][:16], found[row.original][0][:16]) <= 4
        assert min(found[row.row][2], found[row.original][2]) >= 24
        assert max(abs(np.subtract(found[row.row][3:], found[row.original][3:]))) <= 8


def test_the_clip_finds_squares_that_the_hash_misses_and_few_others(world):
    options = load_project("demo", ROOT).dataset.scorers
    clip = load_clip(Component(kind="clip", path=str(ROOT / "src/darkroom_demo/components/clip")))
    subjects = [world.subject(row.row) for row in world.rows if row.kind == "scene"]
    cut = [(subject, squared(subject)) for subject in subjects if square_of(subject.scene)]
    assert len(cut) > 20
    pairs = [[as_jpeg(Image.fromarray(one.draw())) for one in pair] for pair in cut]
    before, after = (clip.encode_images([pair[side] for pair in pairs]) for side in (0, 1))
    least = options.clip_duplicate.min_cosine
    assert ((before * after).sum(dim=1) >= least).float().mean() >= 0.7
    found = [[hashes(Image.fromarray(one))[0] for one in pair] for pair in pairs]
    near = [bits(one, other) <= 40 and bits(one[:16], other[:16]) <= 4 for one, other in found]
    assert sum(near) <= 0.05 * len(near)
    told = [is_right(long_caption(square.scene), square.scene) for _, square in cut]
    assert all(told) and not any(is_held_out(square.scene) for _, square in cut)
    cosines = before @ before.T - torch.eye(len(before))
    assert (cosines.amax(dim=1) >= least).float().mean() <= 0.05


def bits(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def as_jpeg(image: Image.Image) -> np.ndarray:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=95)
    return np.asarray(Image.open(file))


def test_a_watermark_can_be_seen(world):
    for row in rows_of(world, "visible_watermark"):
        assert difference(opened(world, row), world.subject(row.row).draw()) > 4


def test_the_bomb_is_small_and_announces_900_million_pixels(world, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    content = world.picture_bytes(rows_of(world, "decompression_bomb")[0].row)
    assert len(content) < 1_500_000
    assert Image.open(io.BytesIO(content)).size == (30_000, 30_000)


def test_truncated_jpegs_begin_well_and_cannot_be_decoded(world):
    for row in rows_of(world, "truncated_jpeg"):
        image = Image.open(io.BytesIO(world.picture_bytes(row.row)))
        assert image.size == (world.subject(row.row).width, world.subject(row.row).height)
        with pytest.raises(OSError, match="truncated"):
            image.load()
