"""The whole chain with captions that a language model has written anew."""

from collections.abc import Callable

import polars as pl
import pytest
from captioner_fixtures import server  # noqa: F401 - a fixture
from conftest import TinyProject
from doc_pages import DOCS, rows_after
from played_captioner import Server
from tiny_language_model import make_language_model

from darkroom.store import read_manifest, sha256_file
from darkroom.store.latents import LatentShard

pytestmark = pytest.mark.slow

BRIEF = {"prompt": "Shorten to at most ten words: {long}", "max_new_tokens": 6}
BOTH = {"prompt": "{long} {original}", "temperature": 0.9, "max_new_tokens": 6}
REWRITE = {"kind": "transformers", "language_model": "tiny", "batch_size": 50, "dtype": "float32"}


def test_captions_are_rewritten_cached_trained_on_shown_and_checked(changeable: TinyProject) -> None:
    project = changeable
    make_language_model(project.folder / "models/tiny")
    project.edit("config/components.yaml", {"tiny": {"kind": "language_model", "path": "models/tiny"}})
    wrong = {**REWRITE, "captions": {"brief": {"prompt": "Shorten: {lnog}"}}}
    project.edit("config/datasets/demo.yaml", {"rewrite": wrong})
    told = project.run("snakemake", "-n", check=False)
    assert "rewrite.captions.brief.prompt: pictures have no caption 'lnog'; did you mean 'long'?" in told
    project.edit("config/datasets/demo.yaml", {"rewrite": {"captions": {"brief": BRIEF, "both": BOTH}}})
    choice = {"caption_choice": {"long": None, "short": None, "brief": 0.8, "both": 0.2}}
    project.edit("config/runs/demo.yaml", {"train": choice})
    made_again = project.planned()
    assert {"rewrite_part", "rewrite_manifest", "cache_part", "cache_manifest", "train_run"} <= made_again
    assert not {rule for rule in made_again if rule.startswith(("recaption", "bucket", "filter", "download"))}
    assert "dvc.yaml written" in project.run("darkroom", "publish", "--write")
    kept = sha256_file(project.results("recaption") / "manifest.json")

    project.run("snakemake", "rewrite")
    parts = sorted(project.results("rewrite").glob("part-*.parquet"))
    table = pl.concat([pl.read_parquet(path) for path in parts], how="vertical")
    columns = [name for name in table.columns if not name.startswith(("both_", "caption_both"))]
    told = rows_after((DOCS / "rewrite.md").read_text(), "| Column | Meaning |")
    assert columns == [word.strip("`") for row in told for word in row[0].split(", ")]
    counts = read_manifest(project.results("rewrite") / "manifest.json")["counts"]
    assert counts["rewritten"] == table.height == sum(counts["brief_ended"].values())
    # Some of the demo's alt-texts are missing.
    assert counts["both_ended"]["no_source"] == table["caption_both"].to_list().count("") > 0
    assert sha256_file(project.results("recaption") / "manifest.json") == kept
    project.run("snakemake", "rewrite", "-R", "rewrite_part")
    again = sorted(project.results("rewrite").glob("part-*.parquet"))
    assert pl.concat([pl.read_parquet(path) for path in again], how="vertical").equals(table)

    project.run("snakemake")
    shard = project.results("cache") / "part-00000.safetensors"
    opened = LatentShard(shard, shard.with_suffix(".parquet"))
    assert opened.captions == ("original", "long", "short", "both", "brief")
    upstream = read_manifest(project.results("cache") / "manifest.json")["upstream"]
    assert upstream.keys() == {"recaption", "rewrite", "bucket"}
    assert project.planned() == set()
    page = (project.results("report") / "report.html").read_text()
    assert "Brief caption" in page and "wrote others, which ended as follows" in page
    assert f"no_source {counts['both_ended']['no_source']:,}" in page
    uid = table.filter(pl.col("caption_brief") != "")["uid"][0]
    assert "caption, brief: " in project.run("darkroom", "trace", uid)
    assert "demo: nothing is wrong with 12 of 12 stages" in project.run("darkroom", "verify", "demo")
    locked = project.read("dvc.lock")["stages"]["rewrite-demo"]
    assert {path["path"] for path in locked["deps"]} == {
        "models/tiny", "results/datasets/demo/recaption/manifest.json",
    }  # fmt: skip

    # A new threshold of a gate makes nothing before it, and drops pictures that training then has not.
    gates = {"gates": [{"kind": "flags", "captions": ["both"], "none_of": ["empty"]}]}
    project.edit("config/datasets/demo.yaml", {"rewrite_gates": gates})
    assert "recaption_part" not in project.planned("train")
    project.run("snakemake", "cache")
    counts = read_manifest(project.results("rewrite") / "manifest.json")["counts"]
    assert counts["dropped"] == {"flags": counts["rewritten"] - counts["kept"]} != {"flags": 0}
    cached = read_manifest(project.results("cache") / "manifest.json")["counts"]
    assert cached["pictures"] == counts["kept"]

    # Without it the dataset is what it was.
    project.edit("config/datasets/demo.yaml", {"rewrite": None, "rewrite_gates": None})
    project.edit("config/runs/demo.yaml", {"train": {"caption_choice": None}})
    assert not {rule for rule in project.planned() if rule.startswith(("rewrite", "recaption"))}


def test_of_several_datasets_those_that_ask_for_it_are_rewritten_and_no_others(
    make_tiny_project: Callable[[str], TinyProject],
    server: Server,  # noqa: F811
) -> None:
    project = make_tiny_project("mixed")
    source = {"kind": "pictures", "folder": "src/darkroom_demo/pictures/shapes/blue_square"}
    asked = {
        "kind": "server",
        "url": server.url,
        "model": "m",
        "captions": {"brief": {"prompt": "{original}"}},
    }
    squares = {"description": "Blue squares", "source": source, "keep": [], "recaption": None}
    gates = {"gates": [{"kind": "alt_text", "min": 0.1}]}
    project.write("config/datasets/squares.yaml", {**squares, "rewrite": asked, "rewrite_gates": gates})
    project.write("config/runs/mixed.yaml", {
        "extends": "demo", "dataset": None, "datasets": [{"name": "demo-pictures"}, {"name": "squares"}],
        "train": {"num_steps": 4, "num_warmup_steps": 1, "sample_every_steps": 0,
                  "caption_choice": {"original": 1.0, "long": None, "short": None}},
        "measure": {"geneval": None, "clip_score": None, "kernel_clip_distance": None,
                    "frechet_clip_distance": {"num_reference_pictures": 20}},
    })  # fmt: skip
    project.run("snakemake", "--config", "run=mixed")
    counts = read_manifest(project.folder / "results/datasets/squares/rewrite/manifest.json")["counts"]
    assert counts["rewritten"] == server.asked.total() == counts["answered_by"]["played-1"] > 0
    assert not (project.folder / "results/datasets/demo-pictures/rewrite").exists()
    trained = read_manifest(project.results("train", "mixed") / "manifest.json")
    assert trained["upstream"].keys() == {"cache/demo-pictures", "cache/squares"}
    page = (project.results("report", "mixed") / "report.html").read_text()
    assert page.count("wrote others, which ended as follows") == 1
    # Its buckets are made of its captions, and those of the other dataset of none.
    assert "nothing is wrong with 18 of 18 stages" in project.run("darkroom", "verify", "mixed")
    assert project.planned("--config", "run=mixed") == set()
