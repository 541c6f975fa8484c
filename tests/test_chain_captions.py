"""The whole chain with captions of other names than the demo's."""

import polars as pl
import pytest
from conftest import TinyProject

from darkroom.config import load_project
from darkroom.metrics.references import References
from darkroom.store import read_manifest, read_table, sha256_file
from darkroom.store.latents import LatentShard

pytestmark = pytest.mark.slow

GATES = {
    "gates": [
        {"kind": "similarity", "clip": "demo-clip", "captions": ["long"], "min": -1},
        {"kind": "flags", "captions": ["sampled"], "none_of": ["truncated"]},
    ],
    "retries": 1,
}
THIRD = {"prompt": "Describe this picture in full.", "temperature": 0.7, "max_new_tokens": 12}


def test_a_caption_more_is_written_cached_and_trained_on_and_a_choice_captions_nothing_again(
    changeable: TinyProject,
) -> None:
    project = changeable
    before = pl.read_parquet(project.results("recaption") / "part-00000.parquet")
    wrong = {"train": {"caption_choice": {"long": None, "sampeld": 0.4}}}
    more = {"recaption": {"captions": {"sampled": THIRD}}, "caption_gates": GATES}
    project.edit("config/datasets/demo.yaml", more)
    run = project.read("config/runs/demo.yaml")
    project.edit("config/runs/demo.yaml", wrong)
    told = project.run("snakemake", "-n", check=False)
    assert "train.caption_choice.sampeld: the dataset demo has no caption of this name; did you mean" in told
    project.write("config/runs/demo.yaml", run)
    project.edit("config/runs/demo.yaml", {"train": {"caption_choice": {"long": None, "sampled": 0.4}}})
    project.run("snakemake", "train")
    parts = sorted(project.results("recaption").glob("part-*.parquet"))
    after = pl.read_parquet(parts[0])
    assert after.columns[2:6] == ["caption_original", "caption_long", "caption_sampled", "caption_short"]
    # A caption more changes none of the others.
    assert after.select("uid", "caption_long", "caption_short", "long_flags").equals(
        before.select("uid", "caption_long", "caption_short", "long_flags")
    )
    assert after["sampled_num_tokens"].max() <= 12
    shard = project.results("cache") / "part-00000.safetensors"
    opened = LatentShard(shard, shard.with_suffix(".parquet"))
    assert opened.captions == ("original", "long", "sampled", "short")
    counts = read_manifest(project.results("cache") / "manifest.json")["counts"]
    assert counts["captions"] == 4 * counts["pictures"]
    # The picture of a caption that does not end is dropped, after one try more, and is neither cached nor shown.
    gates = read_manifest(project.results("recaption") / "manifest.json")["counts"]
    assert gates["dropped"] == gates["not_passed"]["sampled"] == {"flags": gates["captioned"] - gates["kept"]}
    assert gates["passed"]["long"] == {"at_once": gates["captioned"]}
    assert counts["pictures"] == gates["kept"]
    buckets = read_manifest(project.results("bucket") / "manifest.json")
    assert buckets["counts"]["dropped"]["rejected_captions"] == gates["captioned"] - gates["kept"]
    assert buckets["upstream"].keys() == {"filter", "recaption"}
    assert after["sampled_tries"].to_list() == [2 if gate else 1 for gate in after["sampled_gate"]]
    dropped = after.filter(pl.col("dropped").is_not_null())["uid"].to_list()
    assert dropped and not set(dropped) & set(opened.table["uid"])
    told = project.run("darkroom", "trace", dropped[0])
    assert "dropped for its captions by the gate flags" in told and ": dropped: rejected_captions" in told
    # Nor are they among the real pictures that metrics compare with.
    folders = project.results("download"), project.results("bucket")
    names = [path.stem for path in parts]
    real = References(
        [folders[0] / f"{name}.parquet" for name in names],
        [folders[0] / f"{name}.tar" for name in names],
        [folders[1] / f"{name}.parquet" for name in names],
    ).called(10_000)
    shown = {uid for name in names for uid in read_table(shard.with_name(f"{name}.parquet"))["uid"]}
    assert set(real) == shown and not shown & set(dropped)
    trained = read_manifest(project.results("train") / "manifest.json")["params"]["train"]
    assert trained["caption_choice"] == {"sampled": 0.4, "short": 0.6}
    digests = [sha256_file(path) for path in parts]
    project.run("snakemake", "recaption", "-R", "recaption_part")
    assert [sha256_file(path) for path in parts] == digests
    project.edit("config/runs/demo.yaml", {"train": {"caption_choice": {"original": 0.1, "sampled": 0.3}}})
    assert project.planned("train") == {"train_run"}
    assert load_project("demo", project.folder).run.train.caption_choice["original"] == 0.1
