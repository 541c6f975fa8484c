"""A stage's version says when its results are to be made again: bytes do not change under the same version.

The stages run on the small pictures that the repository has. What no kind of CPU changes is compared byte for
byte: tables, tars, counts. Of stages that compute with floats it is what their numbers are put into: names,
shapes and types of tensors, and which picture makes which batch. The report tells times and is in no digest;
what measure and evaluate write is compared with known answers by their own tests.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from said_rewriter import Said, said

from darkroom.bucket import bucket_part, summarise
from darkroom.cache.fingerprint import PartTables
from darkroom.cache.online import cache_index
from darkroom.cache.stage import cache_part
from darkroom.components.base import Component
from darkroom.config.bucket import Bucket
from darkroom.config.dataset import Download, parse_source
from darkroom.config.gates import RewriteGates
from darkroom.config.keep import DEFAULT_KEEP
from darkroom.config.run import Cache, Draw
from darkroom.draw.chunks import chunk_names
from darkroom.draw.stage import draw_chunk, write_prompts
from darkroom.families.mmdit import MMDiTModel
from darkroom.filter import funnel, select_part, write_funnel
from darkroom.models.families import build_denoiser
from darkroom.models.training_components import TrainingComponents
from darkroom.recaption.original import keep_captions
from darkroom.rewrite.stage import rewrite_part
from darkroom.score import score_dataset, score_part
from darkroom.scorers.table import SCORERS
from darkroom.sources.base import Part
from darkroom.sources.table import download_from, write_urls
from darkroom.stages import STAGES, VERSIONS
from darkroom.store import read_table, sha256_file, sha256_json
from darkroom.train.plan import BatchPlan
from darkroom.train.random import NOISE, TIMESTEP, normal, sample_keys, uniform
from darkroom.train.record import COLUMNS

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "src/darkroom_demo"
# (stage, its version) -> SHA-256 of what it makes here.
GOLDEN = {
    ("download", 7): "eddacf4a7d0b7afc661b9578a063e6f3e2fdf83bac1240f2efb7bbe183ca8e40",
    ("score", 1): "f67bf199c3a1e3048c2a428b7245d6cdc96b157906742adc6a28e9767acd81c1",
    ("filter", 2): "b68dae08583818821680d5782707833c7019e48f2f02fdf5b8fb309e5d2c447d",
    ("recaption", 3): "43001b51742d7ecf8e362321400f4a0099441514171b62045c7e36f61da41b4f",
    ("rewrite", 1): "36bb83fddc741a044729589aeaa59c45b66a05a8a27fd33032f01b566d85b37b",
    ("bucket", 1): "e5d673564d6187e6c21d16d66f07ee1976e385cf53bdec48a938644c89466b6e",
    ("cache", 2): "388a5ce5d573f3ff405e565500892dfbd00de0d9c99c84da61017bb99f3382c7",
    ("draw", 1): "24c17ce383d74ca796a61d377a95c27703469af30fdd37847f6d6f57a9bb60b3",
    ("train", 5): "22092470a0771f8ca22cad7fb4a027a53b0bcdb54f825ddfa18eafe03e6787f1",
}
GATES = RewriteGates.model_validate({"gates": [{"kind": "flags", "none_of": ["repetitive"]}]})
WHERE = {"score": "VERSION in src/darkroom/score/__init__.py, or a scorer's own version"}


def layout(path: Path) -> dict[str, Any]:
    """Tensor -> its type and shape."""
    with safe_open(path, "np") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: [part.get_dtype(), list(part.get_shape())] for name, part in parts.items()}


def tensors(path: Path) -> dict[str, str]:
    """Tensor -> its bytes, in hex."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name).tobytes().hex() for name in file.keys()}  # noqa: SIM118


def batches() -> list[Any]:
    """Which pictures make the first batches of a training on two buckets, and what is drawn for them."""
    ids = np.arange(46, dtype=np.uint64).reshape(23, 2)
    plan = BatchPlan(7, 4, {(64, 64): ids[:14], (96, 48): ids[14:]})
    made = [plan.batch(step) for step in range(1, 30)]
    drawn = [uniform(sample_keys(7, TIMESTEP, batch.uids, batch.visits)).tolist() for batch in made]
    places = [[batch.bucket, batch.index.tolist(), batch.visits.tolist()] for batch in made]
    noise = [normal(sample_keys(7, NOISE, batch.uids, batch.visits), 9).tolist() for batch in made]
    return [places, drawn, noise]


def drawn(out: Path) -> list[Any]:
    """Prompts, chunks and rows of pictures that a drawer without a model draws; PNG's bytes are Pillow's."""
    settings = Draw(
        prompts={"kind": "demo"}, max_prompts=2, num_pictures_per_prompt=2, batch_size=6, prompts_per_chunk=6,
        sampling={"width_px": 16, "height_px": 24},
    )  # fmt: skip
    records = write_prompts(settings, out / "prompts.jsonl")

    def black(prompts: Any, _: Any) -> np.ndarray:
        return np.zeros((len(prompts), 24, 16, 3), np.uint8)

    names, tables = chunk_names(settings, len(records)), []
    for name in names:
        tar, table = out / f"drawn/trained/{name}.tar", out / f"drawn/trained/{name}.parquet"
        draw_chunk(
            "trained",
            name,
            records,
            lambda p, _: np.zeros((len(p), 24, 16, 3), np.uint8),
            settings,
            tar,
            table,
        )
        with tarfile.open(tar) as archive:
            members = archive.getnames()
        tables.append([members, read_table(table).drop("offset", "size").rows()])
    return [sha256_file(out / "prompts.jsonl"), names, tables]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Stage -> what tells its bytes."""
    out = tmp_path_factory.mktemp("golden")
    source = parse_source({"kind": "pictures", "folder": str(DEMO / "pictures/shapes")})
    num_rows = write_urls(source, out / "urls.parquet", [])
    tar, table = out / "part.tar", out / "part.parquet"
    found: dict[str, Any] = {}

    def files(*names: str) -> list[str]:
        return [sha256_file(out / name) for name in names]

    counts = download_from(source, Part(out / "urls.parquet", 0, num_rows, Download(), tar, table))
    found["download"] = [counts, files("urls.parquet", "part.tar", "part.parquet")]
    small = Part(
        out / "urls.parquet", 0, num_rows, Download(max_side_px=40), out / "s.tar", out / "s.parquet"
    )
    found["download"] += [download_from(source, small), files("s.tar")]
    sizes, copies = out / "size.parquet", out / "duplicate.parquet"
    scored = [score_part("size", {}, table, None, sizes), score_dataset("duplicate", {}, [table], copies)]
    found["score"] = [[of.counts for of in scored], files("size.parquet", "duplicate.parquet")]
    columns = {path: tuple(SCORERS[path.stem].columns) for path in (sizes, copies)}
    counts = select_part(table, columns, DEFAULT_KEEP, out / "selection.parquet")
    write_funnel(funnel([out / "selection.parquet"], DEFAULT_KEEP), out / "funnel.json", out / "funnel.csv")
    found["filter"] = [counts, files("selection.parquet", "funnel.json", "funnel.csv")]
    kept = table, out / "selection.parquet", out / "captions.parquet"
    counts = keep_captions(*kept, ["longest", "shortest"])
    found["recaption"] = [counts, files("captions.parquet")]
    with said():
        asked = Said(
            captions={"brief": {"prompt": "{longest}"}, "tags": {"prompt": "{shortest}. {original}"}}
        )
        counts = rewrite_part(out / "captions.parquet", asked, {}, out / "rewritten.parquet", GATES)
    found["rewrite"] = [counts, files("rewritten.parquet")]
    shapes = Bucket(resolution_px=64, step_px=16, min_side_px=32, max_side_px=96)
    counts = bucket_part(table, out / "selection.parquet", shapes, out / "buckets.parquet")
    summarise([out / "buckets.parquet"], shapes, out / "buckets.json")
    found["bucket"] = [counts, files("buckets.parquet", "buckets.json")]
    settings = Cache(vae="demo-vae", text_encoder="demo-text", max_text_tokens=32)
    vae = Component(kind="vae", path=str(DEMO / "components/vae"))
    text = [Component(kind="text_encoder", path=str(DEMO / "components/clip"))]
    tables = PartTables(table, out / "captions.parquet", out / "buckets.parquet")
    encoders = TrainingComponents(settings, vae, text)
    encoded, indexed = ([out / f"{name}.safetensors", out / f"{name}.parquet"] for name in ("cache", "index"))
    counts = cache_part(tables, tar, encoders, *encoded)
    cache_index(tables, encoders, *indexed)
    index = [tensors(indexed[0]), *files("index.parquet")]
    found["cache"] = [counts, layout(encoded[0]), files("cache.parquet"), index]
    sizes = {"latent_channels": 4, "text_dim": 32, "pooled_dim": 16}
    section = MMDiTModel(num_blocks=1, num_heads=2, head_dim=8, patch_size=2)
    network = build_denoiser(section, sizes, seed=0).network
    weights = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    found["train"] = [batches(), weights, list(COLUMNS)]
    found["draw"] = drawn(out)
    return json.loads(json.dumps(found))


def version_of(name: str) -> int:
    return VERSIONS[name]["version"]


@pytest.mark.parametrize("name", sorted({name for name, _ in GOLDEN}))
def test_what_a_stage_writes_changes_only_with_its_version(made: Mapping[str, Any], name: str) -> None:
    version, digest = version_of(name), sha256_json(made[name])
    where = WHERE.get(name, f"VERSION in src/darkroom/{name}/__init__.py")
    assert GOLDEN.get((name, version)) == digest, (
        f"{name} writes other bytes than version {version} did. If a stage before it fails here too, mend that one"
        f" first: its bytes are this one's input. If the code of {name} is what changed, raise {where}, so that"
        f" results are made again. Then write the new digest into GOLDEN: {digest!r}"
    )


def test_every_stage_has_a_version_and_all_with_exact_bytes_a_digest() -> None:
    assert tuple(VERSIONS) == STAGES
    assert all(isinstance(n, int) and n >= 1 for found in VERSIONS.values() for n in found.values())
    assert {name for name, _ in GOLDEN} == {*STAGES} - {"watch", "measure", "evaluate", "report"}


def test_versions_are_read_without_the_libraries_that_compute() -> None:
    script = "import sys, darkroom.stages; print(*{'torch', 'transformers', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
