"""The bucket stage: every kept picture gets one bucket or a reason, and its crop fits."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.bucket import assign, bucket_part, make_buckets, summarise
from darkroom.config.bucket import Bucket
from darkroom.store import read_table, write_table

SMALL = Bucket(resolution_px=64, step_px=16, min_side_px=32, max_side_px=96)


@st.composite
def settings(draw):
    step = draw(st.sampled_from([8, 16, 64]))
    low = draw(st.integers(1, 8))
    middle = draw(st.integers(max(low, 2), 16))
    high = draw(st.integers(middle, 32))
    return Bucket(
        resolution_px=middle * step,
        step_px=step,
        min_side_px=low * step,
        max_side_px=high * step,
        allow_upscale=draw(st.booleans()),
    )


@given(settings())
def test_buckets_keep_sides_and_area_and_exist_turned(options):
    buckets = make_buckets(options)
    area = options.resolution_px**2
    assert (options.resolution_px, options.resolution_px) in buckets
    assert len({w / h for w, h in buckets}) == len(buckets)
    for width, height in buckets:
        assert width % options.step_px == 0 and height % options.step_px == 0
        assert options.min_side_px <= min(width, height) and max(width, height) <= options.max_side_px
        assert width * height <= 1.125 * area
        assert (height, width) in buckets


NOVELAI = Bucket(resolution_px=512, rule="novelai", max_area_px=512 * 768)
# As NovelAI's README lists them.
NOVELAI_19 = (
    *((256, 1024), (320, 1024), (384, 1024), (384, 960), (384, 896), (448, 832), (512, 768), (512, 704)),
    *((512, 512), (576, 640), (640, 576), (704, 512), (768, 512), (832, 448), (896, 384), (960, 384)),
    *((1024, 384), (1024, 320), (1024, 256)),
)


def test_novelai_s_rule_gives_the_19_buckets_that_it_published():
    assert sorted(make_buckets(NOVELAI)) == sorted(NOVELAI_19)
    assert NOVELAI.model_dump()["max_area_px"] == 393216
    assert "rule" not in Bucket().model_dump()


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1))
def test_by_novelai_s_rule_no_other_bucket_has_a_nearer_aspect_ratio(sides):
    width, height = np.array(sides).T
    found = assign(width, height, make_buckets(NOVELAI), NOVELAI.rule)
    ratios = np.array([w / h for w, h in NOVELAI_19])
    error = np.abs(found.bucket_width / found.bucket_height - width / height)
    assert np.allclose(error, np.abs(ratios - (width / height)[:, None]).min(axis=1))
    assert (found.resized_width >= found.bucket_width).all()
    assert (found.resized_height >= found.bucket_height).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "novelai"}, "rule novelai and max_area_px go together"),
        ({"max_area_px": 400_000}, "rule novelai and max_area_px go together"),
        (
            {"rule": "novelai", "max_area_px": 250_000},
            "a square of 262144 pixels, more than max_area_px 250000",
        ),
    ],
)
def test_a_rule_without_what_it_needs_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Bucket(**options)


def test_buckets_of_512_px_are_the_usual_ones():
    buckets = make_buckets(Bucket(resolution_px=512, step_px=64, min_side_px=256, max_side_px=1024))
    assert {(512, 512), (576, 448), (640, 384), (704, 384), (1024, 256), (320, 832)} <= set(buckets)


sides = st.integers(1, 5000)


@given(settings(), st.lists(st.tuples(sides, sides), min_size=1, max_size=30))
def test_resized_pictures_cover_their_bucket_and_crops_lie_inside(options, pictures):
    buckets = make_buckets(options)
    width, height = np.array(pictures).T
    found = assign(width, height, buckets)
    assert set(zip(found.bucket_width.tolist(), found.bucket_height.tolist(), strict=True)) <= set(buckets)
    assert (found.resized_width >= found.bucket_width).all()
    assert (found.resized_height >= found.bucket_height).all()
    assert (found.crop_left >= 0).all() and (found.crop_top >= 0).all()
    assert (found.crop_left + found.bucket_width <= found.resized_width).all()
    assert (found.crop_top + found.bucket_height <= found.resized_height).all()
    # One side fits exactly, so no more is cropped than the shape asks for.
    exact = (found.resized_width == found.bucket_width) | (found.resized_height == found.bucket_height)
    assert exact.all()
    logs = np.log([w / h for w, h in buckets])
    nearest = np.abs(np.log(width / height)[:, None] - logs[None]).min(axis=1)
    chosen = np.abs(np.log(width / height) - np.log(found.bucket_width / found.bucket_height))
    np.testing.assert_allclose(chosen, nearest, atol=1e-12)


def write_part(folder, pictures, kept, name="part-00000"):
    uids = [f"{name[-1]}{i:031x}" for i in range(len(pictures))]
    table = pl.DataFrame(
        {
            "uid": uids,
            "row": list(range(len(pictures))),
            "width": [w for w, _ in pictures],
            "height": [h for _, h in pictures],
        },
        schema_overrides={"row": pl.Int64, "width": pl.Int64, "height": pl.Int64},
    )
    write_table(folder / f"{name}.parquet", table)
    write_table(folder / f"{name}.sel.parquet", pl.DataFrame({"uid": uids, "kept": kept}))
    return folder / f"{name}.parquet", folder / f"{name}.sel.parquet"


def test_every_kept_picture_has_one_bucket_or_a_reason(tmp_path):
    pictures = [(64, 64), (200, 100), (20, 20), (63, 64), (None, None), (90, 40)]
    table, selection = write_part(tmp_path, pictures, [True, True, True, True, False, True])
    counts = bucket_part(table, selection, SMALL, tmp_path / "out.parquet")
    out = read_table(tmp_path / "out.parquet")
    assert out["row"].to_list() == [0, 1, 2, 3, 5]
    assert out["dropped"].to_list() == [None, None, "too_small", "too_small", "too_small"]
    assert out["bucket_width"].to_list() == [64, 96, None, None, None]
    assert counts == {
        "kept": 5,
        "bucketed": 2,
        "dropped": {"too_small": 3},
        "buckets": {"64x64": 1, "96x48": 1},
    }
    upscaled = SMALL.model_copy(update={"allow_upscale": True})
    assert bucket_part(table, selection, upscaled, tmp_path / "out.parquet")["bucketed"] == 5


def test_pictures_that_gates_dropped_for_their_captions_have_no_bucket_and_say_why(tmp_path):
    pictures = [(64, 64), (200, 100), (20, 20), (90, 96), (70, 70)]
    table, selection = write_part(tmp_path, pictures, [True] * 5)
    uids = read_table(table)["uid"]
    plain, told = tmp_path / "plain.parquet", tmp_path / "told.parquet"
    write_table(plain, pl.DataFrame({"uid": uids, "caption_long": ["a"] * 5}))
    gates = {
        "recaption": [None, "flags", "flags", None, None],
        "rewrite": [None, None, None, "alt_text", None],
    }
    paths = [plain]
    for name, dropped in gates.items():
        paths.append(tmp_path / f"{name}.parquet")
        write_table(paths[-1], pl.DataFrame({"uid": uids, "dropped": dropped}))
    counts = bucket_part(table, selection, SMALL, told, paths)
    out = read_table(told)
    assert out["dropped"].to_list() == [None, *["rejected_captions"] * 3, None]
    assert out["bucket_width"].null_count() == out["crop_top"].null_count() == 3
    assert counts["dropped"] == {"too_small": 0, "rejected_captions": 3}
    assert (counts["kept"], counts["bucketed"], sum(counts["buckets"].values())) == (5, 2, 2)
    summarise([told], SMALL, tmp_path / "buckets.json")
    assert json.loads((tmp_path / "buckets.json").read_text())["num_dropped"] == counts["dropped"]
    # Without gates the bytes are those of before.
    bucket_part(table, selection, SMALL, told)
    bucket_part(table, selection, SMALL, tmp_path / "again.parquet", [plain])
    assert (tmp_path / "again.parquet").read_bytes() == told.read_bytes()


def test_the_same_tables_give_the_same_bytes(tmp_path):
    table, selection = write_part(tmp_path, [(64, 64), (200, 100), (20, 20)], [True] * 3)
    bucket_part(table, selection, SMALL, tmp_path / "a.parquet")
    bucket_part(table, selection, SMALL, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_kept_picture_without_dimensions_is_refused_by_uid(tmp_path):
    table, selection = write_part(tmp_path, [(64, 64), (None, None)], [True, True])
    with pytest.raises(ValueError, match=r"0{31}1.*no width and height"):
        bucket_part(table, selection, SMALL, tmp_path / "out.parquet")


def test_the_summary_accounts_for_every_picture(tmp_path):
    parts = []
    for index, pictures in enumerate([[(64, 64)] * 5 + [(20, 20)], [(128, 64)] * 3 + [(64, 64)] * 2]):
        name = f"part-0000{index}"
        table, selection = write_part(tmp_path, pictures, [True] * len(pictures), name)
        parts.append(tmp_path / f"{name}.out")
        bucket_part(table, selection, SMALL, parts[-1])
    counts = summarise(parts, SMALL, tmp_path / "buckets.json", global_batch_size=4)
    report = json.loads((tmp_path / "buckets.json").read_text())
    assert report["num_pictures"] == 11 == report["num_bucketed"] + report["num_dropped"]["too_small"]
    assert report["pictures_by_bucket"]["64x64"] == 7 and report["pictures_by_bucket"]["96x48"] == 3
    assert report["num_leftover"]["64x64"] == 3 and report["num_batches"]["64x64"] == 1
    assert report["num_repeated"]["96x48"] == 1 and report["num_repeated"]["64x64"] == 0
    # (128, 64) becomes (96, 48): nothing is cropped, and squares lose nothing either.
    assert report["mean_cropped_share"] == 0
    assert sum(counts["buckets"].values()) == counts["bucketed"] == 10


def test_the_summary_measures_the_cropped_share(tmp_path):
    table, selection = write_part(tmp_path, [(80, 64)], [True])
    only = Bucket(resolution_px=64, step_px=64, min_side_px=64, max_side_px=64)
    bucket_part(table, selection, only, tmp_path / "part")
    summarise([tmp_path / "part"], only, tmp_path / "buckets.json")
    assert json.loads((tmp_path / "buckets.json").read_text())["mean_cropped_share"] == pytest.approx(0.2)
