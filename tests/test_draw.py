"""The draw stage: the same pictures in chunks of any size, in GenEval's layout, each with its own seed."""

import json
import tarfile

import numpy as np
import polars as pl
import pytest
from drawn_pictures import DRAW, Judged, noise, perfect
from test_sample_pipeline import build, draw

from darkroom.benchmarks.table import read_prompts
from darkroom.config.run import Draw, Sampling
from darkroom.draw.chunks import chunk_names, groups_of
from darkroom.draw.stage import draw_chunk, load_drawer, remove_other_chunks
from darkroom.formats.diffusers import export_pipeline, load_pipeline, save_part
from darkroom.sample.seeds import picture_seed
from darkroom.store.drawn import drawn_by_model
from darkroom_demo.prompts import prompt_records

SMALL = Draw(
    prompts={"kind": "demo"},
    num_pictures_per_prompt=2,
    max_prompts=1,
    seed=3,
    batch_size=4,
    sampling=Sampling(num_inference_steps=2, guidance_scale=2.0, width_px=32, height_px=24),
)


def drawn(tmp_path, prompts_per_chunk: int, drawer=noise) -> Judged:
    judged = Judged(tmp_path / str(prompts_per_chunk), None).with_draw(
        tmp_path / str(prompts_per_chunk), prompts_per_chunk=prompts_per_chunk
    )
    judged.draw_all(trained=drawer, untrained=drawer)
    return judged


def test_chunks_of_any_size_hold_the_same_pictures_from_the_same_passes(tmp_path):
    contents, passes = [], []
    for size in (1, 5, 8, 100):
        calls = []

        def noted(prompts, places, calls=calls):
            calls.append(tuple(places))
            return noise(prompts, places)

        judged = drawn(tmp_path, size, noted)
        models = drawn_by_model(judged.chunks["parquet"], judged.chunks["tar"])
        contents.append({name: list(model.pictures()) for name, model in models.items()})
        passes.append(sorted(calls))
    assert [len(chunk_names(DRAW.model_copy(update={"prompts_per_chunk": s}), 18)) for s in (1, 5, 8, 100)] == [
        5, 5, 3, 1,
    ]  # fmt: skip
    assert passes[1:] == passes[:1] * 3
    for other in contents[1:]:
        for name, pictures in contents[0].items():
            assert all(np.array_equal(a, b) for a, b in zip(pictures, other[name], strict=True))


def test_every_prompt_is_in_exactly_one_chunk_and_another_chunk_is_refused():
    indices = [i for name in chunk_names(DRAW, 18) for group in groups_of(DRAW, 18, name) for i in group]
    assert indices == list(range(18))
    with pytest.raises(ValueError, match="no chunk-00007: 18 prompts make 1 chunks"):
        list(groups_of(DRAW, 18, "chunk-00007"))


def test_tars_unpack_to_genevals_layout_and_each_picture_has_its_row(tmp_path):
    judged = drawn(tmp_path, 4, perfect)
    for tar in judged.chunks["tar"][:5]:
        with tarfile.open(tar) as archive:
            archive.extractall(tmp_path / "unpacked")
    folders = sorted(p.name for p in (tmp_path / "unpacked").iterdir())
    assert folders == [f"{i:05d}" for i in range(18)]
    first = tmp_path / "unpacked/00000"
    assert json.loads((first / "metadata.jsonl").read_text()) == prompt_records()[0]
    assert sorted(p.name for p in (first / "samples").iterdir()) == ["0000.png", "0001.png"]
    models = drawn_by_model(judged.chunks["parquet"], judged.chunks["tar"])
    trained, untrained = (models[name].table() for name in ("trained", "untrained"))
    assert trained["seed"].to_list() == untrained["seed"].to_list()
    assert trained["seed"].n_unique() == trained.height == 36
    assert trained["tar"].unique(maintain_order=True).to_list()[0] == "trained/chunk-00000.tar"
    assert models["trained"].size_px == (64, 64)


def test_chunks_of_an_earlier_cut_are_removed_and_nothing_else(tmp_path):
    judged = drawn(tmp_path, 4)
    for model in ("trained", "untrained"):
        (judged.folder / f"draw/pictures/{model}/notes.txt").write_text("mine")
    fewer = judged.with_draw(judged.folder, prompts_per_chunk=8)
    fewer.draw_all(trained=noise, untrained=noise)
    files = sorted(fewer.folder.glob("draw/pictures/*/chunk-*"))
    manifests = [fewer.folder / f"draw/{path.parent.name}-{path.stem}.json" for path in fewer.chunks["tar"]]
    removed = remove_other_chunks(manifests)
    assert len(removed) == 8 and set(files) - set(removed) == {*fewer.chunks["tar"], *fewer.chunks["parquet"]}
    assert not any(path.exists() for path in removed)
    assert len(list(fewer.folder.glob("draw/pictures/*/notes.txt"))) == 2
    assert remove_other_chunks(manifests) == []


def test_pictures_of_another_size_than_asked_for_are_refused_and_leave_nothing(tmp_path):
    def short(prompts, places):
        return noise(prompts, places)[:, :32]

    records = read_prompts(DRAW.prompts, DRAW.max_prompts)
    with pytest.raises(ValueError, match=r"uint8 \(8, 64, 64, 3\) was asked for"):
        draw_chunk("trained", "chunk-00000", records, short, DRAW, tmp_path / "a.tar", tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_max_prompts_takes_the_first_of_each_task():
    records = read_prompts(DRAW.prompts, 3)
    assert [r["tag"] for r in records].count("position") == 3
    assert records[0] == prompt_records()[0]
    assert len(read_prompts(DRAW.prompts)) == len(prompt_records())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    trained = build(folder / "components", seed=0)
    export_pipeline(trained, folder / "model")
    other = build(folder / "components", seed=5)
    save_part(other.transformer, folder / "untrained" / "transformer")
    return {"trained": folder / "model", "untrained": folder / "untrained"}


def test_a_drawer_seeds_each_picture_by_its_place(models):
    drawer = load_drawer(models["trained"], models["trained"], SMALL)
    places = [(4, 0), (4, 1), (7, 0)]
    prompts = ["a red circle", "a red circle", "a triangle"]
    pictures = drawer(prompts, places)
    seeds = [picture_seed(3, prompt, picture) for prompt, picture in places]
    expected = draw(load_pipeline(models["trained"]), prompts, seeds, SMALL.sampling, batch_size=4)
    assert np.array_equal(pictures, expected)
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_transformer_alone_borrows_the_rest_of_the_trained_pipeline(models):
    places = [(0, 0)]
    ours = load_drawer(models["trained"], models["trained"], SMALL)(["a triangle"], places)
    theirs = load_drawer(models["untrained"], models["trained"], SMALL)(["a triangle"], places)
    swapped = load_pipeline(models["trained"], transformer=models["untrained"] / "transformer")
    expected = draw(swapped, ["a triangle"], [picture_seed(3, 0, 0)], SMALL.sampling, batch_size=4)
    assert np.array_equal(theirs, expected) and not np.array_equal(theirs, ours)


def test_a_real_models_chunks_are_the_same_bytes_whatever_their_size(models, tmp_path):
    records = read_prompts(SMALL.prompts, SMALL.max_prompts)
    drawer = load_drawer(models["trained"], models["trained"], SMALL)
    found = []
    for size in (1, 100):
        settings = SMALL.model_copy(update={"prompts_per_chunk": size})
        names = chunk_names(settings, len(records))
        paths = [(tmp_path / f"{size}/{n}.tar", tmp_path / f"{size}/{n}.parquet") for n in names]
        for name, (tar, table) in zip(names, paths, strict=True):
            draw_chunk("trained", name, records, drawer, settings, tar, table)
        whole = drawn_by_model([t for _, t in paths], [t for t, _ in paths])[str(size)]
        found.append((list(whole.pictures()), whole.table().drop("tar", "offset")))
    assert all(np.array_equal(a, b) for a, b in zip(*(pictures for pictures, _ in found), strict=True))
    assert isinstance(found[0][1], pl.DataFrame) and found[0][1].equals(found[1][1])
