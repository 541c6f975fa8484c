"""Ways to change a finished project behind darkroom's back.

Files of the copy are hard links, so nothing is written in place.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from darkroom.config import load_project
from darkroom.publish.listed import chain_of
from darkroom.stages import manifest_path, upstream_paths
from darkroom.store import sha256_file, sha256_path, write_json

DATASET, RUN = "results/datasets/demo", "results/runs/demo"
MODEL = f"{RUN}/train/model"
Tamper = Callable[[Path], None]


def copy_of(project: Path, folder: Path) -> Path:
    """A copy that shares its files with the project, without what no check looks at."""
    left_out = shutil.ignore_patterns(".git", ".dvc", ".snakemake", "logs", "checkpoints", "__pycache__")
    shutil.copytree(project, folder, symlinks=True, copy_function=os.link, ignore=left_out)
    return folder


def put(path: Path, data: bytes) -> None:
    """A new file in the place of the one that is shared."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)


def cache_of(folder: Path) -> Path:
    """The folder of the run's cache."""
    (found,) = (folder / "results/caches").iterdir()
    return found


def manifest_of(folder: Path, stage: str) -> Path:
    """A stage's manifest."""
    return next(path for path in folder.glob(f"results/*/*/{stage}/manifest.json"))


def flip(name: str, at: int = -1) -> Tamper:
    """One byte of a file changed."""

    def tamper(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1
        put(folder / name, bytes(data))

    return tamper


def cut(name: str) -> Tamper:
    """The second half of a file lost."""
    return lambda folder: put(folder / name, (data := (folder / name).read_bytes())[: len(data) // 2])


def add(name: str, data: bytes = b"more\n") -> Tamper:
    """A file that was not there."""

    def tamper(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return tamper


def copied(source: str, name: str) -> Tamper:
    """The bytes of one file under the name of another."""
    return lambda folder: put(folder / name, (folder / source).read_bytes())


def remove(*names: str) -> Tamper:
    """Files, or folders with all in them, taken away."""

    def tamper(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return tamper


def link(name: str) -> Tamper:
    """The same file or folder, elsewhere, behind a link."""

    def tamper(folder: Path) -> None:
        elsewhere = folder.with_name(f"{folder.name}-elsewhere")
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)

    return tamper


def pipe(name: str) -> Tamper:
    """A named pipe, in the place of a file or where there was none: reading it would never end."""

    def tamper(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return tamper


def swap(name: str, other: str) -> Tamper:
    """Two files in each other's place."""

    def tamper(folder: Path) -> None:
        one, two = (folder / name).read_bytes(), (folder / other).read_bytes()
        put(folder / name, two)
        put(folder / other, one)

    return tamper


def edited(name: str, change: Callable[[Any], Any]) -> Tamper:
    """The content of a JSON file changed, and written as darkroom writes it."""

    def tamper(folder: Path) -> None:
        body = json.loads((folder / name).read_text())
        change(body)
        write_json(folder / name, body)

    return tamper


def in_yaml(name: str, change: Callable[[Any], Any]) -> Tamper:
    """The content of a YAML file changed."""

    def tamper(folder: Path) -> None:
        body = yaml.safe_load((folder / name).read_text())
        change(body)
        put(folder / name, yaml.safe_dump(body, sort_keys=False).encode())

    return tamper


def in_text(name: str, old: str, new: str) -> Tamper:
    """A text changed once."""

    def tamper(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, old
        put(folder / name, text.replace(old, new, 1).encode())

    return tamper


def in_table(name: str, column: str, value: Any) -> Tamper:
    """A column of a Parquet table changed in its first row."""

    def tamper(folder: Path) -> None:
        table = pl.read_parquet(folder / name)
        first = pl.int_range(pl.len()) == 0
        table = table.with_columns(pl.when(first).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
        beside = folder / f"{name}.new"
        table.write_parquet(beside)
        beside.replace(folder / name)

    return tamper


def both(*tampers: Tamper) -> Tamper:
    """One after another."""

    def tamper(folder: Path) -> None:
        for each in tampers:
            each(folder)

    return tamper


def forged(tamper: Tamper, *, lock: bool = False) -> Tamper:
    """A change with every manifest and digest below it made to fit; of dvc.lock too, where `lock` asks for it."""
    return both(tamper, refit_lock if lock else refit)


def refit(folder: Path, measured: bool = True) -> None:
    """Have every manifest of the run tell of the files and manifests that are here now; and protocols and metrics
    too, of the pictures and models, unless `measured` is false."""
    project = load_project("demo", folder)
    for phase, stage in chain_of(project, folder):
        path = folder / manifest_path(phase, stage)
        body = json.loads(path.read_text())
        for name in (*body["parts"], *(n for n in body["files"] if n.endswith(".json"))):
            _refit_part(path.parent / name)
        if stage == "measure" and measured:
            _refit_protocols(path.parent, sha256_file(manifest_of(folder, "draw")))
            for metric in project.run.measure.chosen:
                _refit_part(path.parent / f"{metric}.json")
        if stage == "evaluate" and measured:
            _refit_metrics(folder, path.parent)
        for key in ("parts", "files"):
            body[key] = {name: sha256_path(path.parent / name) for name in body[key]}
        above = upstream_paths(phase, stage)
        body["upstream"] = {name: sha256_file(folder / above[name]) for name in body["upstream"]}
        write_json(path, body)


def refit_lock(folder: Path, measured: bool = True) -> None:
    """As `refit`, and dvc.lock's digests of files made to fit too."""
    from darkroom.publish.dvclock import Content
    from darkroom.store.found import digests

    refit(folder, measured)
    body = yaml.safe_load((folder / "dvc.lock").read_text())
    for stage in body["stages"].values():
        for item in (*stage.get("deps", []), *stage["outs"]):
            if (folder / item["path"]).is_file():
                content = Content.of_file(digests(folder / item["path"], with_md5=True))
                item.update(md5=content.md5, size=content.size)
    put(folder / "dvc.lock", yaml.safe_dump(body, sort_keys=False).encode())


def _refit_part(path: Path) -> None:
    body = json.loads(path.read_text())
    if "files" in body:
        body["files"] = {name: sha256_path(path.parent / name) for name in body["files"]}
        write_json(path, body)


def _refit_protocols(folder: Path, pictures: str) -> None:
    for path in folder.glob("*.protocol.json"):
        write_json(path, {**json.loads(path.read_text()), "pictures": pictures})


def _refit_metrics(folder: Path, evaluate: Path) -> None:
    files = json.loads(manifest_of(folder, "train").read_text())["files"]
    body = json.loads((evaluate / "metrics.json").read_text())
    body["models"] = {"trained": files["model"], "untrained": files["untrained"]}
    write_json(evaluate / "metrics.json", body)


def in_cache(tamper: Callable[[str], Tamper], name: str) -> Tamper:
    """A change of a file of the run's cache, whose folder has its digest for a name."""
    return lambda folder: tamper(str((cache_of(folder) / name).relative_to(folder)))(folder)


def a_device(folder: Path) -> None:
    """A link is the only way to one that anybody may make."""
    (folder / MODEL / "vae/config.json").unlink()
    (folder / MODEL / "vae/config.json").symlink_to("/dev/zero")


def a_socket(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / RUN / "evaluate")  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket")


def twice_a_key(folder: Path) -> None:
    """JSON in which two readers find two values."""
    path = folder / RUN / "evaluate/manifest.json"
    put(path, path.read_bytes().replace(b'{\n  "counts"', b'{\n  "stage": "train",\n  "counts"', 1))
    assert json.loads(path.read_text())["stage"] == "evaluate"


def without_a_part(folder: Path) -> None:
    """The last part taken out of every stage of the dataset and the cache, and all made to fit."""
    for stage in ("download", "score", "filter", "recaption", "bucket", "cache"):
        path = manifest_of(folder, stage)
        body = json.loads(path.read_text())
        for key in ("parts", "files"):
            body[key] = {name: digest for name, digest in body[key].items() if "part-00001" not in name}
        put(path, json.dumps(body).encode())
        for file in path.parent.glob("part-00001*"):
            file.unlink()
    refit_lock(folder)


def a_manifest_that_leads_out(folder: Path) -> None:
    edited(f"{RUN}/evaluate/manifest.json", lambda body: body["files"].update({"../../../../dvc.yaml": "0"}))(
        folder
    )


def other_rows(folder: Path) -> None:
    in_table(f"{DATASET}/urls.parquet", "url", "https://example.org/other.jpg")(folder)
    refit_lock(folder)


def with_all_copies(folder: Path) -> None:
    """A forged score in the results, in the copy that Git tracks, and in every manifest, but not in dvc.lock."""
    score = edited(f"{RUN}/evaluate/metrics.json", lambda body: body["trained"].update(clip_score=99.0))
    forged(score)(folder)
    for stage in ("evaluate", "report"):
        for file in (folder / f"published/{stage}-demo").iterdir():
            put(file, (folder / RUN / stage / file.name).read_bytes())


def lock_one(folder: Path, name: str, path: str) -> None:
    """Have dvc.lock hold a manifest as it is now, of the stage that leaves it alone."""
    from darkroom.store.found import digests

    here = digests(folder / path, with_md5=True)

    def change(body: dict) -> None:
        for item in body["stages"][name]["outs"]:
            if item["path"] == path:
                item.update(md5=here.md5, size=here.size)

    in_yaml("dvc.lock", change)(folder)


def flip_component(folder: Path) -> None:
    (path,) = (p for p in folder.glob("src/**/vae/diffusion_pytorch_model.safetensors"))
    flip(str(path.relative_to(folder)))(folder)
