"""Scorers of one part in one pass: every picture is decoded and embedded once, and every file stays the same."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from photographs import photograph, write_part
from safetensors.torch import save_file
from test_components import write_clip

from darkroom import store
from darkroom.components.base import Component
from darkroom.components.clip import ClipScorer
from darkroom.score import together
from darkroom.score.one_pass import read_in_one_pass
from darkroom.score.stage import Asked, score_in_one_pass, score_part
from darkroom.scorers.base import Part
from darkroom.scorers.table import SCORERS

NUM = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of 40 pictures with captions, a CLIP, and a head for it."""
    folder = tmp_path_factory.mktemp("part")
    photo = photograph("astronaut")
    write_part(folder, [photo.crop((5 * i, 5 * i, 5 * i + 90, 5 * i + 60)) for i in range(NUM)])
    table = folder / "part-00000.parquet"
    store.write_table(table, store.read_table(table).with_columns(caption=pl.format("number {}", "row")))
    write_clip(folder / "clip")
    (folder / "head").mkdir()
    weights = {"weight": torch.linspace(-1, 1, 48)[None], "bias": torch.zeros(1)}
    save_file(weights, folder / "head/model.safetensors")
    return folder


def asked(folder: Path, scorer: str, out: Path, **options: Any) -> Asked:
    known = {
        "clip": Component(kind="clip", path=str(folder / "clip")),
        "head": Component(kind="aesthetic_head", path=str(folder / "head")),
    }
    named = {name: known[name] for name in ("clip", "head") if name in options}
    return Asked(scorer, options, out / f"part-00000.{scorer}.parquet", f"digest of {scorer}", named)


def several(folder: Path, out: Path, batch_size: int = 16) -> list[Asked]:
    return [
        asked(folder, "quality", out),
        asked(folder, "perceptual_hash", out),
        asked(folder, "clip_similarity", out, clip="clip", batch_size=16),
        asked(folder, "aesthetic", out, clip="clip", head="head", batch_size=batch_size),
    ]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pictures were read from the tar, and how many embedded."""
    number: Counter[str] = Counter()
    read, encode = store.TarReader.read, ClipScorer.encode_images

    def counting_read(self: Any, offset: int, size: int) -> bytes:
        number["decoded"] += 1
        return read(self, offset, size)

    def counting_encode(self: Any, images: Any) -> Any:
        number["embedded"] += len(images)
        return encode(self, images)

    monkeypatch.setattr(store.TarReader, "read", counting_read)
    monkeypatch.setattr(ClipScorer, "encode_images", counting_encode)
    return number


def alone(folder: Path, each: Asked) -> Any:
    paths = folder / "part-00000.parquet", folder / "part-00000.tar", each.out
    return score_part(each.scorer, each.options, *paths, each.components)


def in_one_pass(folder: Path, of: list[Asked]) -> list[Any]:
    return score_in_one_pass(of, folder / "part-00000.parquet", folder / "part-00000.tar")


def test_four_scorers_decode_and_embed_every_picture_once_and_say_what_they_say_alone(
    folder: Path, tmp_path: Path, counted: Counter[str]
) -> None:
    apart = [alone(folder, each) for each in several(folder, tmp_path / "apart")]
    assert counted == {"decoded": 4 * NUM, "embedded": 2 * NUM}
    counted.clear()
    assert in_one_pass(folder, several(folder, tmp_path / "together")) == apart
    assert counted == {"decoded": NUM, "embedded": NUM}
    for each in several(folder, tmp_path / "apart"):
        assert (tmp_path / "together" / each.out.name).read_bytes() == each.out.read_bytes()


def test_embeddings_of_other_batches_are_not_shared_as_their_sums_may_differ(
    folder: Path, tmp_path: Path, counted: Counter[str]
) -> None:
    of = several(folder, tmp_path / "together", batch_size=5)
    apart = several(folder, tmp_path / "apart", batch_size=5)
    found, expected = in_one_pass(folder, of), [alone(folder, each) for each in apart]
    assert found == expected
    assert counted["embedded"] == 2 * 2 * NUM
    assert of[3].out.read_bytes() == apart[3].out.read_bytes()


def test_a_scorer_that_fails_or_asks_twice_or_for_nothing_leaves_the_others_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counter[str]
) -> None:
    spec, seen = SCORERS["quality"], []

    def failing(options: Any, part: Part) -> pl.DataFrame:
        for place, _ in part.images():
            if place == 20:
                raise ValueError("the twentieth")
        raise AssertionError

    def twice(options: Any, part: Part) -> pl.DataFrame:
        seen.append([sum(1 for _ in part.images()) for _ in range(2)])
        return spec.score(options, replace(part, passes=[]))

    def nothing(options: Any, part: Part) -> pl.DataFrame:
        return pl.DataFrame({name: [None] * part.rows.height for name in spec.columns}).cast(pl.Float64)

    names = ("failing", "twice", "nothing")
    for name, score in zip(names, (failing, twice, nothing), strict=True):
        monkeypatch.setitem(SCORERS, name, replace(spec, name=name, score=score))
    of = [asked(folder, name, tmp_path) for name in (*names, "perceptual_hash")]
    failed, *others = in_one_pass(folder, of)
    assert isinstance(failed, ValueError) and str(failed) == "the twentieth"
    assert not of[0].out.exists() and seen == [[NUM, NUM]]
    alone(folder, replace(of[3], out=tmp_path / "alone.parquet"))
    assert of[3].out.read_bytes() == (tmp_path / "alone.parquet").read_bytes()
    rows = [scored.counts[each.scorer]["rows"] for scored, each in zip(others, of[1:], strict=True)]
    assert rows == [NUM + 1] * 3


def test_readers_get_every_item_in_order_however_fast_they_read() -> None:
    held = 0

    def items() -> Iterator[int]:
        nonlocal held
        for i in range(1000):
            held = i
            yield i

    def reader(chunk: int, lead: list[int]) -> Any:
        def read(stream: Iterator[int]) -> list[int]:
            found = []
            for item in stream:
                found.append(item)
                if len(found) % chunk == 0:
                    lead.append(held - item)
            return found

        return read

    leads: list[list[int]] = [[], [], []]
    found = read_in_one_pass(items(), [reader(n, lead) for n, lead in zip((1, 7, 999), leads, strict=True)])
    assert found == [list(range(1000))] * 3
    # The stream is never further on than a block.
    assert max(map(max, leads)) < 16
    assert read_in_one_pass(iter(()), [list, list]) == [[], []]


def test_an_error_of_the_stream_ends_all_readers() -> None:
    def broken() -> Iterator[int]:
        yield from range(20)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        read_in_one_pass(broken(), [list, list])


def said(each: Asked) -> dict[str, Any]:
    components = {name: {"kind": of.kind, "path": of.path} for name, of in each.components.items()}
    return {"scorer": each.scorer, "options": each.options, "components": components,
            "references": [], "made_with": each.made_with}  # fmt: skip


def test_one_job_scores_for_the_others_which_put_in_place_what_is_ready(
    folder: Path, tmp_path: Path, counted: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    table, tar = folder / "part-00000.parquet", folder / "part-00000.tar"
    first, *others = several(folder, tmp_path)
    together.note(first.out, {each.out: said(each) for each in others})
    together.score_for_all(first, table, tar)
    assert first.manifest.exists() and not any(each.out.exists() for each in others)
    assert counted == {"decoded": NUM, "embedded": NUM}
    for each in others:
        together.score_for_all(each, table, tar)
    assert counted == {"decoded": NUM, "embedded": NUM}
    for each in several(folder, tmp_path / "alone"):
        together.score_for_all(each, table, tar)
        for name in (each.out.name, each.manifest.name):
            assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert capsys.readouterr().out.count("another job of this part has scored for it") == 3


@pytest.mark.parametrize("missing", ["columns", "manifest", "other options", "damaged"])
def test_what_is_not_ready_a_scorers_own_job_scores(
    folder: Path, tmp_path: Path, counted: Counter[str], missing: str
) -> None:
    table, tar = folder / "part-00000.parquet", folder / "part-00000.tar"
    first, other = several(folder, tmp_path)[:2]
    together.note(first.out, {other.out: said(other)})
    together.score_for_all(first, table, tar)
    ready = tmp_path / together.FOLDER / other.out.name
    if missing == "columns":
        # As where the job was killed between the two.
        ready.unlink()
    elif missing == "manifest":
        ready.with_suffix(".json").unlink()
    elif missing == "damaged":
        ready.write_bytes(ready.read_bytes()[:-1])
    else:
        other = replace(other, made_with="another digest")
    together.score_for_all(other, table, tar)
    assert counted["decoded"] == 2 * NUM
    body = json.loads(other.manifest.read_bytes())
    assert body["settings"] == other.made_with
    assert body["files"] == {other.out.name: store.sha256_file(other.out)}


def test_an_error_of_another_scorer_is_told_and_its_own_job_meets_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, tar = folder / "part-00000.parquet", folder / "part-00000.tar"
    first = asked(folder, "quality", tmp_path)
    (tmp_path / "none").mkdir()
    other = replace(
        asked(folder, "aesthetic", tmp_path, clip="clip", head="head"),
        components={**several(folder, tmp_path)[3].components,
                    "head": Component(kind="aesthetic_head", path=str(tmp_path / "none"))},
    )  # fmt: skip
    together.note(first.out, {other.out: said(other)})
    together.score_for_all(first, table, tar)
    assert first.manifest.exists()
    assert "aesthetic: not scored together with quality: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        together.score_for_all(other, table, tar)
