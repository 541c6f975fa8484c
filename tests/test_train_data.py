"""Cached samples: stale shards are refused, and batches hold what the shards hold, whoever asks."""

import json
import threading

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.config.run import Train
from darkroom.store import sample_uid, write_table
from darkroom.store.latents import LatentShard, table_columns, table_digest, write_shard
from darkroom.train.data import NULL_CAPTION, LatentCache, caption_shares, choose_captions
from darkroom.train.distributed import Ranks
from darkroom.train.loader import BatchMaker, Loader, rank_slice
from darkroom.train.plan import BatchPlan

FINGERPRINT = {"vae": "v" * 64, "text_encoder": "t" * 64, "dtype": "float32", "max_text_tokens": 16}
CHANNELS, TEXT_DIM, POOLED_DIM = 4, 12, 8
CAPTIONS = ("original", "long", "short", "tags")


def write_cache(folder, parts, dtype=torch.float32, captions=CAPTIONS, **changed):
    """Shards of random numbers: `parts` is a list of {(width, height): pictures}. Returns (shards, null)."""
    generator = torch.Generator().manual_seed(1)
    shards = []
    for number, buckets in enumerate(parts):
        rows = [(b, i) for b, n in buckets.items() for i in range(n)]
        named = sorted((sample_uid(f"{number}/{b}/{i}", ""), b, i) for b, i in rows)
        tensors = {
            f"latents/{w}x{h}": torch.randn(n, CHANNELS, h // 8, w // 8, generator=generator).to(dtype)
            for (w, h), n in buckets.items()
        }
        columns = {
            "uid": [uid for uid, _, _ in named],
            "row": list(range(len(named))),
            "bucket_width": [b[0] for _, b, _ in named],
            "bucket_height": [b[1] for _, b, _ in named],
            "index": [i for _, _, i in named],
        }
        for caption in captions:
            lengths = torch.randint(2, 17, (len(named),), generator=generator)
            columns[f"{caption}_length"] = lengths.tolist()
            columns[f"{caption}_offset"] = (lengths.cumsum(0) - lengths).tolist()
            text = torch.randn(int(lengths.sum()), TEXT_DIM, generator=generator)
            tensors[f"text/{caption}"] = text.to(dtype)
            pooled = torch.randn(len(named), POOLED_DIM, generator=generator)
            tensors[f"pooled/{caption}"] = pooled.to(dtype)
        table = pl.DataFrame(columns).select(table_columns(captions))
        name = folder / f"part-{number:05d}"
        write_table(name.with_suffix(".parquet"), table)
        found = {**FINGERPRINT, "caption_names": list(captions), "table": table_digest(table), **changed}
        write_shard(name.with_suffix(".safetensors"), tensors, found)
        shards.append((name.with_suffix(".safetensors"), name.with_suffix(".parquet")))
    null = {
        "text/null": torch.ones(2, TEXT_DIM, dtype=dtype),
        "pooled/null": torch.ones(1, POOLED_DIM, dtype=dtype),
    }
    write_shard(folder / "null.safetensors", null, FINGERPRINT)
    return shards, folder / "null.safetensors"


UNIT = st.floats(0, 1, exclude_max=True)
PARTS = [{(64, 64): 7, (96, 48): 3}, {(64, 64): 4}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gathered_batches_hold_what_the_shards_hold(tmp_path, dtype):
    shards, null = write_cache(tmp_path, PARTS, dtype)
    cache = LatentCache(shards, null, FINGERPRINT)
    assert {shape: len(uids) for shape, uids in cache.uids.items()} == {(64, 64): 11, (96, 48): 3}
    opened = [LatentShard(*shard) for shard in shards]
    rows = pl.concat([s.table.with_row_index("i").with_columns(shard=k) for k, s in enumerate(opened)]).sort(
        "uid"
    )
    rows = list(rows.filter(pl.col("bucket_width") == 64).iter_rows(named=True))
    places = np.array([10, 0, 3, 3, 7])
    captions = np.array([0, 1, 3, NULL_CAPTION, 2])
    batch = cache.gather((64, 64), places, captions)
    given = batch.conditioning
    (batch_text,), (batch_mask,) = given.text, given.text_mask
    assert batch.latents.dtype == batch_text.dtype == given.pooled.dtype == dtype
    for at, (place, caption) in enumerate(zip(places, captions, strict=True)):
        row, shard = rows[place], opened[rows[place]["shard"]]
        assert torch.equal(batch.latents[at], shard.latents(64, 64)[row["index"]])
        if caption == NULL_CAPTION:
            text, pooled = torch.ones(2, TEXT_DIM, dtype=dtype), torch.ones(POOLED_DIM, dtype=dtype)
        else:
            name = cache.captions[caption]
            first = row[f"{name}_offset"]
            text = shard.text(name)[first : first + row[f"{name}_length"]]
            pooled = shard.pooled(name)[row["i"]]
        assert int(batch_mask[at].sum()) == len(text)
        assert torch.equal(batch_text[at][batch_mask[at]], text)
        assert (batch_text[at][~batch_mask[at]] == 0).all()
        assert torch.equal(given.pooled[at], pooled)
    assert batch_mask[:, -1].any()  # padded to the longest, no further


def test_a_stale_shard_is_refused_by_file_and_field(tmp_path):
    shards, null = write_cache(tmp_path, PARTS)
    with pytest.raises(
        ValueError, match=r"part-00000\.safetensors: stale shard: vae is v+\.\.\., expected w+"
    ):
        LatentCache(shards, null, {**FINGERPRINT, "vae": "w" * 64})
    with pytest.raises(ValueError, match=r"max_text_tokens is 16, expected 32.*cache stage again"):
        LatentCache(shards, null, {**FINGERPRINT, "max_text_tokens": 32})
    with pytest.raises(ValueError, match=r"part-00001.*pictures is missing, expected abc"):
        LatentCache(shards, null, [FINGERPRINT, {**FINGERPRINT, "pictures": "abc"}])
    # The null shard alone is stale.
    write_shard(null, LatentShard(null, None).tensors, {**FINGERPRINT, "text_encoder": "other"})
    with pytest.raises(ValueError, match=r"null\.safetensors: stale shard: text_encoder is other"):
        LatentCache(shards, null, FINGERPRINT)


def test_a_table_of_another_shard_is_refused(tmp_path):
    shards, null = write_cache(tmp_path, PARTS)
    swapped = [(shards[0][0], shards[1][1])]
    with pytest.raises(
        ValueError, match=r"part-00001\.parquet: is not the table of .*part-00000\.safetensors"
    ):
        LatentCache(swapped, null, FINGERPRINT)


def test_a_torn_shard_is_refused(tmp_path):
    shards, null = write_cache(tmp_path, PARTS)
    whole = shards[0][0].read_bytes()
    shards[0][0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        LatentCache(shards, null, FINGERPRINT)


def test_shards_with_the_same_content_have_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_cache(tmp_path / name, PARTS)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    header = json.loads(
        (tmp_path / "a" / "null.safetensors").read_bytes()[8:].split(b"\0", 1)[0].split(b"}}")[0] + b"}}"
    )
    assert list(header["__metadata__"]) == ["darkroom"]


def make_settings(**changed):
    return Train(**{"num_steps": 12, "global_batch_size": 6, "microbatch_size": 6, **changed})


def batches_of(cache, settings, ranks=None):
    return BatchMaker(cache, BatchPlan(5, settings.global_batch_size, cache.uids), settings, 5, ranks)


def test_ranks_together_hold_the_global_batch_with_the_same_noise(tmp_path):
    cache = LatentCache(*write_cache(tmp_path, PARTS), FINGERPRINT)
    settings = make_settings(global_batch_size=7)
    whole = batches_of(cache, settings)
    ranks = [batches_of(cache, settings, Ranks(r, 3)) for r in range(3)]
    for step in range(6):
        one, parts = whole.make(step), [rank.make(step) for rank in ranks]
        assert sorted(len(p.latents) for p in parts) == [2, 2, 3]
        for field in ("latents", "noise", "timestep_normal"):
            assert torch.equal(getattr(one, field), torch.cat([getattr(p, field) for p in parts])), field
        assert torch.equal(one.conditioning.pooled, torch.cat([p.conditioning.pooled for p in parts]))
        texts = [p.conditioning.text[0] for p in parts]
        lengths = [text.shape[1] for text in texts]
        text = torch.cat(
            [
                torch.nn.functional.pad(t, (0, 0, 0, max(lengths) - n))
                for t, n in zip(texts, lengths, strict=True)
            ]
        )
        assert torch.equal(one.conditioning.text[0], text)


def test_the_thread_makes_the_same_batches_and_ends_with_the_block(tmp_path):
    cache = LatentCache(*write_cache(tmp_path, PARTS), FINGERPRINT)
    settings = make_settings()
    again = batches_of(cache, settings)
    with Loader(again, first_step=4) as loader:
        batches = list(loader)
    assert [b.step for b in batches] == list(range(4, 12))
    for batch in batches:
        assert torch.equal(batch.noise, again.make(batch.step).noise)
        assert torch.equal(batch.conditioning.text[0], again.make(batch.step).conditioning.text[0])
    with Loader(again, first_step=0) as loader:
        next(iter(loader))  # leave with the queue full
    assert not [t for t in threading.enumerate() if t.name == "darkroom-loader"]


def test_an_error_of_the_thread_reaches_the_training(tmp_path):
    cache = LatentCache(*write_cache(tmp_path, PARTS), FINGERPRINT)
    broken = batches_of(cache, make_settings())
    broken.make = lambda step: (_ for _ in ()).throw(ValueError(f"step {step} broke"))
    with Loader(broken, first_step=0) as loader, pytest.raises(ValueError, match="step 0 broke"):
        list(loader)


def test_captions_are_chosen_and_dropped_at_the_configured_rates():
    generator = np.random.default_rng(0)
    chance, drop = generator.random(200_000), generator.random(200_000)
    shares = caption_shares({"long": 0.6, "tags": 0.3, "original": 0.1}, CAPTIONS)
    share = np.bincount(choose_captions(shares, 0.1, chance, drop) + 1, minlength=5) / 200_000
    np.testing.assert_allclose(share, [0.1, 0.09, 0.54, 0.0, 0.27], atol=0.005)
    only = choose_captions(caption_shares({"long": 1.0}, CAPTIONS), 0.0, chance, drop)
    assert set(only) == {1}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.lists(UNIT, min_size=1))
def test_the_choice_gives_each_name_its_share_of_the_unit_and_none_to_what_is_not_named(weights, chances):
    """A name is chosen where the chance lies between the sums of the shares before it and with it."""
    names = [f"caption{i}" for i in range(len(weights))]
    choice = {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True) if weight}
    shares = caption_shares(dict(reversed(choice.items())), names)
    assert shares.tolist() == [choice.get(name, 0.0) for name in names]
    chosen = choose_captions(shares, 0.0, np.array(chances), np.zeros(len(chances)))
    sums = np.cumsum(shares)
    for place, chance in zip(chosen, chances, strict=True):
        assert weights[place] > 0
        assert sums[place] - shares[place] <= chance + 1e-9 and chance - 1e-9 <= sums[place]


@pytest.mark.parametrize(
    ("captions", "shares"),
    [(("original",), [1.0]), (("original", "a", "b"), [0.0, 0.5, 0.5]), (("original", "a"), [0.0, 1.0])],
)
def test_without_a_choice_all_generated_captions_are_shown_alike(captions, shares):
    assert caption_shares(None, captions).tolist() == shares


def test_a_caption_that_the_cache_does_not_have_is_refused_by_its_name():
    with pytest.raises(
        ValueError, match=r"caption_choice\.tgas: the cache has no .* are original, long, short"
    ):
        caption_shares({"long": 0.5, "tgas": 0.5}, CAPTIONS)


def test_of_shards_with_unlike_captions_those_that_all_have_are_shown(tmp_path):
    (tmp_path / "b").mkdir()
    first, null = write_cache(tmp_path, PARTS)
    second, _ = write_cache(tmp_path / "b", [{(64, 64): 5}], captions=("original", "tags", "long", "more"))
    cache = LatentCache([*first, *second], null, FINGERPRINT)
    assert cache.captions == ("original", "long", "tags")
    opened = [LatentShard(*shard) for shard in (*first, *second)]
    uids, shards = cache.uids[64, 64].tolist(), cache.shards[64, 64].tolist()
    assert set(shards) == {0, 1, 2}
    for place, ((high, low), number) in enumerate(zip(uids, shards, strict=True)):
        shard = opened[number]
        row = shard.table.row(by_predicate=pl.col("uid") == f"{high:016x}{low:016x}", named=True)
        shown = cache.gather((64, 64), np.array([place]), np.array([2])).conditioning.text[0][0]
        assert torch.equal(shown, shard.text("tags")[row["tags_offset"] :][: row["tags_length"]])


def test_slices_cover_the_batch_once():
    for size, world in [(8, 1), (8, 3), (5, 5)]:
        parts = [list(range(size))[rank_slice(size, r, world)] for r in range(world)]
        assert [place for part in parts for place in part] == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
