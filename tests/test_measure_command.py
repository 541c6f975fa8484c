"""`darkroom measure` judges any folder of pictures, and says what it left out."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from doc_pages import DOCS, ROOT, commands
from PIL import Image
from test_components import write_clip
from tiny_features import pictures, write_dinov2, write_inception, write_pictures
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.components.inception import load_inception
from darkroom.measuring import folder as folders
from darkroom.measuring.folder import look_through
from darkroom.measuring.prompts import read_prompts
from darkroom.measuring.statistics import read_statistics
from darkroom.metrics.clip_score import clip_scores
from darkroom.metrics.frechet import frechet_distance
from darkroom.metrics.kid import kid


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    write_inception(root / "inception")
    write_dinov2(root / "dinov2")
    write_clip(root / "clip")
    return root


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Four pictures, one that is damaged and a file that is none."""
    root = write_pictures(tmp_path / "drawn", pictures(3, 0))
    (root / "more").mkdir()
    Image.fromarray(pictures(1, 9)[0]).save(root / "more/last.webp", lossless=True)
    (root / "002b.jpg").write_bytes((root / "000.png").read_bytes()[:-40])
    (root / "notes.txt").write_text("not a picture")
    return root


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "real", pictures(7, 1))


def measured(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["measure", *map(str, arguments)])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["measure", *map(str, arguments)])
    assert result.exit_code == 2, result.output + str(result.exception)
    return result.output


def test_a_folder_is_judged_by_real_pictures_and_by_prompts(weights, drawn, real, tmp_path) -> None:
    table = tmp_path / "prompts.csv"
    rows = {"file": ["more/last.webp", "000.png", "gone.png"], "prompt": ["a cat", "two dogs", "none"]}
    pl.DataFrame(rows).write_csv(table)
    kinds = [f"--component={kind}={weights / kind}" for kind in ("inception", "dinov2", "clip")]
    output = measured(drawn, "--metrics", "fid,kid,fd_dinov2,clip_score", "--reference", real, "--prompts", table,
                      "--resize", "clean", "--batch-size", 3, "--out", tmp_path / "out", *kinds)  # fmt: skip
    body = json.loads((tmp_path / "out/metrics.json").read_text())
    own = load_inception(Component(kind="inception", path=str(weights / "inception")), "clean")
    names = ["000.png", "001.png", "002.png", "more/last.webp"]
    found = [np.asarray(Image.open(drawn / name).convert("RGB")) for name in names]
    features = [own.encode_images(seen).double().numpy() for seen in (pictures(7, 1), found)]
    scores = body["scores"]
    assert scores["fid"] == pytest.approx(frechet_distance(*features), rel=1e-3, abs=1e-5)
    assert scores["kid"] == pytest.approx(kid(*features, 1000), rel=1e-3, abs=1e-5)
    assert scores["fd_dinov2"] > 0
    clip = load_clip(Component(kind="clip", path=str(weights / "clip")))
    images = clip.encode_images([found[0], found[3]]).numpy()
    expected = clip_scores(images, clip.encode_texts(["two dogs", "a cat"]).numpy())
    assert scores["clip_score"] == pytest.approx(expected.mean(), abs=1e-3)
    per_picture = pl.read_csv(tmp_path / "out/pictures.csv")
    assert per_picture["file"].to_list() == names
    assert per_picture["prompt"].to_list() == ["two dogs", None, None, "a cat"]
    assert per_picture["clip_score"].drop_nulls().to_list() == pytest.approx(list(expected), abs=1e-3)
    assert body["prompts"] == {"number": 2, "pictures_without_prompt": 2, "rows_without_picture": 1}
    assert body["pictures"]["number"] == 4 and list(body["pictures"]["unreadable"]) == ["002b.jpg"]
    assert body["protocol"]["fid"]["definition"].endswith("resize clean, 7 real, 4 generated")
    assert body["protocol"]["clip_score"]["clip"]["name"] == "clip"
    assert f"| FID (clean, torch-fidelity 0.4.0) | {scores['fid']:.2f} | lower |" in output
    assert "pictures: 4; 1 cannot be read, 1 files are no pictures\n  002b.jpg: damaged: " in output
    assert "prompts: of 2 pictures; 2 have none, 1 rows name no picture" in output
    assert str(tmp_path) not in (tmp_path / "out/metrics.json").read_text()


def test_a_copy_of_a_real_picture_is_found_in_the_features_of_any_network(
    weights, drawn, real, tmp_path
) -> None:
    (drawn / "copy.png").write_bytes((real / "002.png").read_bytes())
    for k, picture in enumerate(pictures(2, 5)):
        Image.fromarray(picture).save(drawn / f"00{3 + k}.png")
    pl.DataFrame({"file": ["copy.png"], "prompt": ["a cat"]}).write_parquet(tmp_path / "prompts.parquet")
    names = [*(f"00{k}.png" for k in range(5)), "copy.png", "more/last.webp"]
    for number, kind in enumerate(("dinov2", "clip", "inception")):
        out = tmp_path / f"out{number}"
        others = [f"--component={other}={weights / other}" for other in ("clip", "dinov2") if other != kind]
        output = measured(
            drawn, "--metrics", "nearest_real,coverage,clip_score", "--reference", real, "--prompts",
            tmp_path / "prompts.parquet", "--out", out, f"--component={kind}={weights / kind}", *others,
        )  # fmt: skip
        assert f"| Cosine to the nearest real picture ({kind}" in output and f"| Coverage ({kind}" in output
        table = pl.read_csv(out / "pictures.csv")
        assert table["file"].to_list() == names
        found = dict(zip(names, table["nearest_real"].to_list(), strict=True))
        assert found.pop("copy.png") == pytest.approx(1, abs=1e-9) and max(found.values()) < 1 - 1e-9
        assert table["nearest_real_picture"][5] == "002.png"
        assert table["clip_score"].null_count() == 6
        body = json.loads((out / "metrics.json").read_text())
        assert body["scores"]["nearest_real"] == pytest.approx(table["nearest_real"].mean(), abs=1e-6)
        assert kind in body["protocol"]["nearest_real"]


def test_a_metric_that_fails_takes_no_other_with_it(weights, drawn, tmp_path) -> None:
    few = write_pictures(tmp_path / "few", pictures(2, 3))
    arguments = ["--metrics", "coverage,nearest_real", "--reference", few, "--out", tmp_path / "out"]
    arguments += ["--component", f"dinov2={weights / 'dinov2'}"]
    result = CliRunner().invoke(app, ["measure", str(drawn), *map(str, arguments)])
    assert result.exit_code == 1
    assert "| Cosine to the nearest real picture (dinov2) | " in result.stdout
    assert result.stderr.endswith("coverage was not measured: 5 neighbours need more pictures than 2\n")
    body = json.loads((tmp_path / "out/metrics.json").read_text())
    assert list(body["scores"]) == ["nearest_real"] and list(body["not_measured"]) == ["coverage"]


def test_statistics_stand_for_the_real_pictures_of_frechet_distances(weights, drawn, real, tmp_path) -> None:
    own = load_inception(Component(kind="inception", path=str(weights / "inception")), "tf1")
    features = own.encode_images(pictures(7, 1)).double().numpy()
    np.savez(tmp_path / "real.npz", mu=features.mean(axis=0), sigma=np.cov(features, rowvar=False))
    arguments = [drawn, "--component", f"inception={weights / 'inception'}", "--reference"]
    by_file = measured(*arguments, tmp_path / "real.npz", "--metrics", "fid").splitlines()[2]
    by_folder = measured(*arguments, real, "--metrics", "fid").splitlines()[2]
    assert by_file == by_folder and by_file.startswith("| FID (tf1, torch-fidelity 0.4.0) | ")
    told = refused(*arguments, tmp_path / "real.npz", "--metrics", "fid,kid")
    assert told == "kid takes no statistics for real pictures: give --reference FOLDER\n"
    np.savez(tmp_path / "other.npz", mu=np.zeros(64), sigma=np.eye(64))
    told = refused(*arguments, tmp_path / "other.npz", "--metrics", "fid")
    assert told == "the real features have 64 dimensions, the generated 2048\n"


def test_statistics_that_are_none_are_refused_and_nothing_is_unpickled(tmp_path) -> None:
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "done",))

    np.savez(tmp_path / "a.npz", mu=np.array([Harmful()], dtype=object), sigma=np.eye(1))
    with pytest.raises(ValueError, match=r"a\.npz: Object arrays cannot be loaded"):
        read_statistics(tmp_path / "a.npz")
    assert not (tmp_path / "done").exists()
    np.savez(tmp_path / "b.npz", mu=np.zeros(2), cov=np.eye(2))
    with pytest.raises(ValueError, match=r"b\.npz: has no sigma; it has mu, cov; reference stat"):
        read_statistics(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"c\.npz: File is not a zip file"):
        read_statistics(tmp_path / "c.npz")
    with (
        zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("mu.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(1001):
            member.write(bytes(1_000_000))
    with pytest.raises(ValueError, match=r"unpacks to 1,001,000,000 bytes"):
        read_statistics(tmp_path / "d.npz")


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_table_of_prompts_may_be_of_three_formats_and_names_files_from_its_own_folder(
    tmp_path, ending
) -> None:
    root = write_pictures(tmp_path / "samples/model", pictures(2, 0))
    table = tmp_path / f"samples/pictures.{ending}"
    rows = pl.DataFrame({"file": ["model/001.png", "000.png"], "seed": [1, 2], "prompt": ["b", " a "]})
    {"csv": rows.write_csv, "parquet": rows.write_parquet, "jsonl": rows.write_ndjson}[ending](table)
    assert read_prompts(table, root, ["000.png", "001.png"]).of == {"000.png": "a", "001.png": "b"}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "file,text\n000.png,x\n", "has no column 'prompt'; it has file, text"),
        ("a.csv", "file,prompt\n000.png,\n", "row 1: 'prompt' is missing or no text"),
        ("a.csv", "file,prompt\n000.png,a\n./000.png,b\n", "row 2: 000.png stands there twice"),
        ("a.csv", "file,prompt\n9.png,a\n", "names no picture of"),
        ("a.csv", "file,prompt\n../../etc/000.png,a\n", "names no picture of"),
        ("a.jsonl", '{"file": "000.png", "prompt": "a"}\n[1]\n', "row 2: no record like"),
        ("a.jsonl", '{"file": "000.png"\n', "row 1: "),
        ("a.jsonl", '{"file": "000.png", "prompt": 5}\n', "row 1: 'prompt' is missing or no text"),
        ("a.parquet", "nothing", "a.parquet: "),
        ("a.xlsx", "nothing", "ends in none of .csv, .parquet and .jsonl and .ndjson"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_its_row(tmp_path, name, text, told) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        read_prompts(tmp_path / name, tmp_path, ["000.png"])
    assert str(error.value).startswith(str(tmp_path / name)) and told in str(error.value)


def test_pictures_are_read_within_bounds_and_as_the_reference_libraries_read_them(
    tmp_path, monkeypatch
) -> None:
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (9, 9, 4), dtype=np.uint8)
    Image.fromarray(colors).save(tmp_path / "alpha.png")
    Image.fromarray(colors[..., 0]).save(tmp_path / "grey.PNG")
    Image.fromarray(colors[..., :3]).save(tmp_path / "turned.png", exif=exif_of(6))
    Image.fromarray(rng.integers(0, 2**16, (9, 9), dtype=np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.fromarray(colors[..., k]) for k in range(3)]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "gif.png", format="gif")
    Image.new("L", (101, 100)).save(tmp_path / "large.png")
    Image.new("L", (51, 1)).save(tmp_path / "line.png")
    (tmp_path / "empty.jpeg").touch()
    (tmp_path / "a\nb.png").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).touch()
    (tmp_path / "shut").mkdir(mode=0)
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr(folders, "MAX_PIXELS", 10_000)
    found = look_through(tmp_path)
    assert found.names == ["alpha.png", "grey.PNG", "turned.png"] and found.num_others == 0
    assert dict(found.unreadable) == {
        "deep.png": "grey of more than 8 bits", "empty.jpeg": "no PNG, JPEG or WebP", "film.webp": "animated",
        "gif.png": "no PNG, JPEG or WebP", "large.png": "101 x 100 px, more than 10,000",
        "line.png": "51 x 1 px, one side more than 50 times the other", "a\\nb.png": "its name is no plain text",
        "\\udcff.png": "its name is no plain text", "shut": "Permission denied", "pipe.png": "no regular file",
        "round": "a link to a folder, which is not followed",
    }  # fmt: skip
    alpha, grey, turned = found.pictures()
    assert np.array_equal(alpha, colors[..., :3]) and np.array_equal(turned, colors[..., :3])
    assert np.array_equal(grey, np.repeat(colors[..., :1], 3, axis=2))
    before = found.sha256
    Image.fromarray(colors[..., 1]).save(tmp_path / "grey.PNG")
    assert look_through(tmp_path).sha256 != before
    monkeypatch.setattr(folders, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match=r"^\d+ bytes, more than 10$"):
        folders.read(tmp_path / "alpha.png")
    with pytest.raises(ValueError, match=r"holds no picture that can be read .*: its name is no"):
        look_through(tmp_path)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def test_what_is_missing_is_told_before_any_picture_is_read(weights, drawn, real, monkeypatch) -> None:
    monkeypatch.setattr(folders, "decoded", lambda content: pytest.fail("read a picture"))
    monkeypatch.delenv("FID_INCEPTION", raising=False)
    inception, clip = (f"{kind}={weights / kind}" for kind in ("inception", "clip"))
    both = ["--reference", real, "--component"]
    for arguments, told in (
        (["fidd"], "there is no metric 'fidd'; there are geneval, clip_score, text_rendering, vlm_judge"),
        ([","], "name one or more metrics of geneval"),
        (["geneval"], "geneval stands on a component: give --component object_detector=FOLDER"),
        (["fid", "--reference", real], "fid stands on a component: give --component inception=FOLDER; it is"),
        (["fid", *both, "inception"], "--component inception: should be KIND=FOLDER"),
        (["fid", *both, "inception=nowhere"], "is neither a folder nor of config/components.yaml (fid-inception)"),
        (["fid", *both, "inception=fid-inception"], "environment variable FID_INCEPTION is not set"),
        (["fid", *both, f"inception={real}"], "has no weights-inception-2015-12-05-6726825d.pth or"),
        (["fid", "--component", inception], "fid compares with real pictures: give --reference FOLDER"),
        (["clip_score", "--component", clip], "clip_score compares with prompts: give --prompts TABLE"),
        (["clip_score", "--component", clip, "--resize", "tf1"], "resize is an option of none of clip_score"),
        (["fid", *both, inception, "--resize", "best"], "resize: Input should be 'tf1', 'clean' or 't"),
        (["fid", *both, inception, "--out", real], "is there already; name another folder, or remove it"),
    ):  # fmt: skip
        assert told in refused(drawn, "--metrics", *arguments), arguments
    told = "nowhere: is neither a folder of real pictures nor a file of their statistics"
    arguments = ["--metrics", "fid", "--component", inception, "--reference"]
    assert told in refused(drawn, *arguments, "nowhere")
    told = "nowhere: is no file; it should be a table with file and prompt"
    assert told in refused(drawn, *arguments, real, "--prompts", "nowhere")
    with pytest.raises(ValueError, match="is no folder; it should hold pictures"):
        look_through(drawn / "nothing")


def test_the_commands_of_the_docs_judge_what_darkroom_sample_drew(weights, tmp_path, monkeypatch) -> None:
    for name in ("config", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "circles/model", pictures(2, 0, ((64, 64),)))
    rows = {"file": ["model/000.png", "model/001.png"], "prompt": ["a photo of a red circle"] * 2}
    pl.DataFrame(rows).write_csv("circles/pictures.csv")
    listed = [command for block in commands(DOCS / "measure.md") for command in block]
    first, second = (command for command in listed if command.startswith("darkroom measure"))
    output = measured(*first.split()[2:])
    assert "| CLIPScore | " in output and "prompts: of 2 pictures; 0 have none, 0 rows name no" in output
    write_pictures(tmp_path / "FOLDER", pictures(2, 0))
    write_pictures(tmp_path / "REAL", pictures(2, 1))
    (tmp_path / "WEIGHTS").symlink_to(weights / "inception")
    assert "| FID (clean, torch-fidelity " in measured(*second.split()[2:])
    assert sorted(path.name for path in Path("measured").iterdir()) == ["metrics.json", "pictures.csv"]
