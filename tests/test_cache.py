"""The cache stage: what a shard holds, what it refuses, and that it can be made again to the byte."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from bounds import assert_same_sums
from PIL import Image
from test_components import CONTEXT, write_clip, write_vae

from darkroom.bucket import bucket_part
from darkroom.cache.encode import caption_embeddings
from darkroom.cache.fingerprint import PartTables, captions_in, expected_fingerprint, part_fields, read_part
from darkroom.cache.stage import cache_null, cache_part
from darkroom.components.base import Component
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import encode_latents, load_vae
from darkroom.config.bucket import Bucket
from darkroom.config.run import Cache
from darkroom.models.training_components import TrainingComponents
from darkroom.store import read_table, sample_uid, write_table, write_tar
from darkroom.store.latents import LatentShard, ShardWriter, write_shard, written_shard
from darkroom.store.pictures import decode_picture

BUCKETS = Bucket(resolution_px=32, step_px=8, min_side_px=16, max_side_px=64)
SETTINGS = Cache(vae="v", text_encoder="t", max_text_tokens=CONTEXT, batch_size=4, dtype="float32")
SIDES = [(40, 40), (64, 32), (32, 32), (50, 40), (33, 70), (128, 130), (36, 36)]
CAPTIONS = [("red " * 30, "a red circle", "red"), ("", "a red circle", "circle"), (None, "circle", "red")]


def make_picture(width, height, seed, mode="RGB"):
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    waves = np.stack([np.sin(x + seed), np.cos(y * 2 + seed), np.sin(x * y / 3)], axis=-1)
    out = io.BytesIO()
    Image.fromarray(((waves + 1) * 127).astype(np.uint8)).convert(mode).save(out, "JPEG", quality=92)
    return out.getvalue()


def write_part(folder):
    """A download part, a recaption part and a bucket part of SIDES; one more picture failed."""
    pictures = [make_picture(w, h, i, "L" if i == 2 else "RGB") for i, (w, h) in enumerate(SIDES)]
    uids = [sample_uid(str(i), "") for i in range(len(SIDES))]
    members = sorted((f"{uid}.jpg", content) for uid, content in zip(uids, pictures, strict=True))
    spans = write_tar(folder / "part.tar", members)
    rows = [
        {"uid": u, "row": i, "sha256": f"{i:064x}", "width": w, "height": h, "status": "ok",
         "offset": spans[f"{u}.jpg"][0], "size": spans[f"{u}.jpg"][1]}
        for i, (u, (w, h)) in enumerate(zip(uids, SIDES, strict=True))
    ]  # fmt: skip
    failed = {"uid": sample_uid("x", ""), "row": 99, "status": "timeout"}
    write_table(folder / "part.parquet", pl.DataFrame([*rows, failed]))
    write_table(folder / "selection.parquet", pl.DataFrame({"uid": uids, "kept": [True] * len(uids)}))
    texts = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(uids))]
    captions = {f"caption_{k}": [t[j] for t in texts] for j, k in enumerate(("original", "long", "short"))}
    write_table(folder / "captions.parquet", pl.DataFrame({"uid": uids, **captions}))
    bucket_part(folder / "part.parquet", folder / "selection.parquet", BUCKETS, folder / "buckets.parquet")


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components")
    vae, clip = write_vae(folder / "vae"), write_clip(folder / "clip")
    return Component(kind="vae", path=str(vae)), [Component(kind="text_encoder", path=str(clip))]


def tables_in(folder):
    return PartTables(*(folder / f"{name}.parquet" for name in ("part", "captions", "buckets")))


def make(folder, components, settings=SETTINGS, out="cache", **options):
    outputs = [folder / f"{out}.safetensors", folder / f"{out}.parquet"]
    encoders = TrainingComponents(settings, *components)
    return cache_part(tables_in(folder), folder / "part.tar", encoders, *outputs, **options)


def expect(folder, components, settings=SETTINGS):
    return expected_fingerprint(settings, *components, tables_in(folder))


@pytest.fixture(scope="module")
def part(tmp_path_factory, components):
    folder = tmp_path_factory.mktemp("part")
    write_part(folder)
    return folder, make(folder, components)


def test_latents_are_those_of_the_cropped_pictures(part, components):
    folder, counts = part
    shard = LatentShard(folder / "cache.safetensors", folder / "cache.parquet", expect(folder, components))
    vae, download = load_vae(components[0]), read_table(folder / "part.parquet")
    places = read_table(folder / "buckets.parquet").drop("row").join(download, on="uid")
    places = {row["uid"]: row for row in places.iter_rows(named=True)}
    assert counts["pictures"] == len(SIDES) == shard.table.height == sum(counts["buckets"].values())
    tar = (folder / "part.tar").read_bytes()
    for row in shard.table.iter_rows(named=True):
        place = places[row["uid"]]
        content = tar[place["offset"] : place["offset"] + place["size"]]
        with Image.open(io.BytesIO(content)) as image:
            image = image.convert("RGB").resize(
                (place["resized_width"], place["resized_height"]), Image.Resampling.LANCZOS
            )
        left, top = place["crop_left"], place["crop_top"]
        image = image.crop((left, top, left + row["bucket_width"], top + row["bucket_height"]))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        found = shard.latents(row["bucket_width"], row["bucket_height"])[row["index"]]
        # (128, 130) may be decoded at half its size first.
        close = 0.2 if place["width"] == 128 else 1e-4
        torch.testing.assert_close(found, encode_latents(vae, pixels)[0], atol=close, rtol=0)


def test_captions_are_those_of_the_text_encoder(part, components):
    folder, counts = part
    shard = LatentShard(folder / "cache.safetensors", folder / "cache.parquet")
    captions = {row["uid"]: row for row in read_table(folder / "captions.parquet").iter_rows(named=True)}
    encoder = load_text_encoder(components[1][0])
    for number, row in enumerate(shard.table.iter_rows(named=True)):
        for kind in ("original", "long", "short"):
            text = captions[row["uid"]][f"caption_{kind}"] or ""
            expected = encoder.encode([text], CONTEXT, SETTINGS.batch_size)[0]
            first = row[f"{kind}_offset"]
            found = shard.text(kind)[first : first + row[f"{kind}_length"]]
            # The longest sum is that of the MLP; beside other captions a kernel may add in another order.
            assert_same_sums(found, expected.hidden, num_summands=4 * 64)
            assert_same_sums(shard.pooled(kind)[number], expected.pooled, num_summands=4 * 64)
    texts = [CAPTIONS[i % 3] for i in range(len(SIDES))]
    assert counts["captions"] == 3 * len(SIDES)
    assert counts["captions_unique"] == 5  # with the empty one
    assert counts["captions_empty"] == sum(not t[0] for t in texts)
    assert counts["captions_cut"] == sum(bool(t[0] and len(t[0]) > 99) for t in texts)
    assert len(shard.text("long")) < sum(shard.table["long_length"])  # equal captions are stored once


def test_the_same_part_has_the_same_bytes(part, components, tmp_path):
    folder, _ = part
    make(folder, components, out="again")
    for ending in ("safetensors", "parquet"):
        assert (folder / f"again.{ending}").read_bytes() == (folder / f"cache.{ending}").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_shard_that_is_written_in_pieces_has_the_bytes_of_one_written_whole(part, components, dtype):
    folder, _ = part
    make(folder, components, SETTINGS.model_copy(update={"dtype": dtype}), out="pieces")
    pieces = LatentShard(folder / "pieces.safetensors", folder / "pieces.parquet")
    write_shard(folder / "whole.safetensors", pieces.tensors, pieces.fingerprint)
    assert (folder / "pieces.safetensors").read_bytes() == (folder / "whole.safetensors").read_bytes()


def test_no_more_than_a_batch_is_encoded_before_it_is_written(part, components, monkeypatch):
    folder, _ = part
    waiting, most = [], []

    def encode(encoder, captions, *options):
        waiting.append(len(captions))
        return caption_embeddings(encoder, captions, *options)

    def write(self, name, first, rows):
        most.append(sum(waiting))
        waiting.clear()
        return written(self, name, first, rows)

    written = ShardWriter.write
    monkeypatch.setattr("darkroom.cache.stage.caption_embeddings", encode)
    monkeypatch.setattr(ShardWriter, "write", write)
    make(folder, components, SETTINGS.model_copy(update={"batch_size": 2}), out="small")
    assert max(most) == 2 and sum(most) == 5


def test_a_shard_that_lacks_a_row_is_not_left_behind(tmp_path):
    path = tmp_path / "shard.safetensors"
    with (
        pytest.raises(AssertionError),
        written_shard(path, {"text/long": (3, 2)}, torch.float32, {}) as shard,
    ):
        shard.write("text/long", 0, torch.ones(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_the_null_is_the_empty_caption(components, tmp_path):
    cache_null(SETTINGS, components[1], tmp_path / "null.safetensors")
    shard = LatentShard(tmp_path / "null.safetensors", None)
    expected = load_text_encoder(components[1][0]).null(CONTEXT)
    torch.testing.assert_close(shard.text("null"), expected.hidden)
    torch.testing.assert_close(shard.pooled("null"), expected.pooled[None])
    everywhere = expected_fingerprint(SETTINGS, *components)
    assert shard.fingerprint.items() <= everywhere.items()
    assert {"text_encoder", "max_text_tokens", "dtype", "hidden_layer"} <= shard.fingerprint.keys()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_latents_are_stored_in_the_asked_precision(part, components, dtype):
    folder, _ = part
    make(folder, components, SETTINGS.model_copy(update={"dtype": dtype}), out=dtype)
    one = LatentShard(folder / f"{dtype}.safetensors", folder / f"{dtype}.parquet")
    whole = LatentShard(folder / "cache.safetensors", folder / "cache.parquet")
    assert one.fingerprint["dtype"] == dtype
    for name, tensor in whole.tensors.items():
        assert torch.equal(one.tensors[name], tensor.to(getattr(torch, dtype)))


def test_bfloat16_computes_about_the_same_and_says_so(part, components):
    folder, _ = part
    stored = SETTINGS.model_copy(update={"dtype": "float16"})
    make(folder, components, stored, out="fast", compute_dtype="bfloat16")
    fast = LatentShard(folder / "fast.safetensors", folder / "fast.parquet")
    whole = LatentShard(folder / "cache.safetensors", folder / "cache.parquet")
    assert fast.fingerprint["compute_dtype"] == "bfloat16" != whole.fingerprint["compute_dtype"]
    for name, tensor in whole.tensors.items():
        error = (fast.tensors[name].float() - tensor).norm() / tensor.norm()
        assert 0 < error < 0.05, name


@pytest.mark.parametrize("field", ["vae", "scale", "text_encoder", "dtype", "max_text_tokens", "pictures",
                                   "crops", "captions"])  # fmt: skip
def test_whatever_shaped_a_shard_makes_it_stale_when_changed(part, components, tmp_path, field):
    folder, _ = part
    vae, text_encoders = components
    settings = SETTINGS
    if field == "vae":
        changed = write_vae(tmp_path / "vae")
        file = changed / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
        vae = Component(kind="vae", path=str(changed))
    elif field == "scale":
        changed = write_vae(tmp_path / "vae")
        config = (changed / "config.json").read_text()
        (changed / "config.json").write_text(config.replace("1.5305", "0.18215"))
        vae = Component(kind="vae", path=str(changed))
    elif field == "text_encoder":
        text_encoders = [Component(kind="text_encoder", path=str(write_clip(tmp_path / "clip", seed=5)))]
    elif field in ("dtype", "max_text_tokens"):
        settings = settings.model_copy(update={field: {"dtype": "float16", "max_text_tokens": 9}[field]})
    expected = expect(folder, (vae, text_encoders), settings)
    if field in ("pictures", "crops", "captions"):
        column = {"pictures": "sha256", "crops": "crop_left", "captions": "caption_short"}[field]
        names = {"pictures": "part", "crops": "buckets", "captions": "captions"}
        (tmp_path / "copy").mkdir()
        for name in names.values():
            table = read_table(folder / f"{name}.parquet")
            if name == names[field]:
                other = pl.lit(7, dtype=table[column].dtype) if field == "crops" else pl.lit("other")
                table = table.with_columns(
                    pl.when(pl.col("row" if "row" in table.columns else column).is_first_distinct())
                    .then(other)
                    .otherwise(pl.col(column))
                    .alias(column)
                )
            write_table(tmp_path / "copy" / f"{name}.parquet", table)
        expected = expect(tmp_path / "copy", components)
    with pytest.raises(ValueError, match=rf"cache\.safetensors: stale shard: .*\b{field} is .* expected"):
        LatentShard(folder / "cache.safetensors", folder / "cache.parquet", expected)


def test_pictures_that_are_not_what_the_table_says_are_refused_by_uid():
    row = {"uid": "u1", "width": 40, "height": 30, "resized_width": 32, "resized_height": 24,
           "crop_left": 0, "crop_top": 0, "bucket_width": 32, "bucket_height": 24}  # fmt: skip
    whole = make_picture(40, 30, 0)
    assert decode_picture(whole, row).shape == (24, 32, 3)
    with pytest.raises(ValueError, match="picture u1: the JPEG is 41x30, the table says 40x30"):
        decode_picture(make_picture(41, 30, 0), row)
    with pytest.raises(ValueError, match="picture u1: the tar holds no whole JPEG"):
        decode_picture(whole[: len(whole) // 2], row)
    png = io.BytesIO()
    Image.new("RGB", (40, 30)).save(png, "PNG")
    with pytest.raises(ValueError, match="picture u1: the tar holds no whole JPEG"):
        decode_picture(png.getvalue(), row)


def test_numbers_that_are_not_finite_are_refused_by_uid(part, components, monkeypatch):
    folder, _ = part
    rows = read_table(folder / "buckets.parquet").sort("bucket_width", "bucket_height", "uid")

    def broken(vae, images):
        latents = encode_latents(vae, images)
        latents[0, 0, 0, 0] = 1e9  # finite, but not as float16
        return latents

    monkeypatch.setattr("darkroom.cache.encode.encode_latents", broken)
    with pytest.raises(
        ValueError, match=rf"picture {rows['uid'][0]} are not finite as torch.float16.*cache.dtype"
    ):
        make(folder, components, SETTINGS.model_copy(update={"dtype": "float16"}), out="broken")
    assert not (folder / "broken.safetensors").exists()


def test_a_picture_without_captions_is_refused_by_uid(part, components, tmp_path):
    folder, _ = part
    for name in ("part.parquet", "buckets.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    captions = read_table(folder / "captions.parquet")
    write_table(tmp_path / "captions.parquet", captions[1:])
    with pytest.raises(ValueError, match=rf"captions\.parquet: has no picture {captions['uid'][0]}"):
        expect(tmp_path, components)


def test_pictures_that_were_dropped_for_their_captions_are_not_encoded(part, components, tmp_path):
    folder, _ = part
    for name in ("part.parquet", "buckets.parquet", "part.tar"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    captions = read_table(folder / "captions.parquet")
    gates = pl.Series("dropped", ["flags", None, "similarity", *[None] * (captions.height - 3)])
    write_table(tmp_path / "captions.parquet", captions.with_columns(gates))
    told = [tmp_path / "captions.parquet"]
    bucket_part(
        folder / "part.parquet", folder / "selection.parquet", BUCKETS, tmp_path / "buckets.parquet", told
    )
    counts = make(tmp_path, components)
    shard = LatentShard(
        tmp_path / "cache.safetensors", tmp_path / "cache.parquet", expect(tmp_path, components)
    )
    assert counts["pictures"] == shard.table.height == len(SIDES) - 2
    assert set(captions["uid"]) - set(shard.table["uid"]) == {captions["uid"][0], captions["uid"][2]}


def test_rewritten_captions_come_after_the_others_and_a_picture_without_is_refused(
    part, components, tmp_path
):
    folder, _ = part
    plain, captions = tables_in(folder), read_table(folder / "captions.parquet")
    said = captions.select("uid", caption_brief=pl.col("caption_long").str.slice(0, 5)).sort(
        "uid", descending=True
    )
    write_table(tmp_path / "rewritten.parquet", said.with_columns(model=pl.lit("m")), sort_by=None)
    tables = replace(plain, rewritten=tmp_path / "rewritten.parquet")
    found, before = read_part(tables), read_part(plain)
    assert [*captions_in(found)] == ["original", "long", "short", "brief"]
    assert found.drop("caption_brief").equals(before)
    assert captions_in(found)["brief"] == [text[:5] for text in captions_in(found)["long"]]
    fields = part_fields(found)
    assert fields["captions"] != part_fields(before)["captions"]
    assert fields["caption_names"] == ["original", "long", "short", "brief"]
    outputs = [tmp_path / "cache.safetensors", tmp_path / "cache.parquet"]
    cache_part(tables, folder / "part.tar", TrainingComponents(SETTINGS, *components), *outputs)
    assert LatentShard(*outputs).captions == ("original", "long", "short", "brief")
    write_table(tmp_path / "rewritten.parquet", said[1:])
    with pytest.raises(ValueError, match=rf"rewritten\.parquet: has no picture {said['uid'][0]}"):
        read_part(tables)


def test_a_part_without_pictures_gives_an_empty_shard(part, components, tmp_path):
    folder, _ = part
    for name in ("part.parquet", "captions.parquet", "part.tar"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_table(tmp_path / "buckets.parquet", read_table(folder / "buckets.parquet")[:0])
    counts = make(tmp_path, components)
    assert counts["pictures"] == counts["captions"] == 0
    shard = LatentShard(
        tmp_path / "cache.safetensors", tmp_path / "cache.parquet", expect(tmp_path, components)
    )
    assert shard.buckets() == [] and shard.text("long").shape[0] == 0
