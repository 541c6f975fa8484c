"""`darkroom retry`: rows that failed arrive in a later round, and nothing that was made before is made again."""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TinyProject
from PIL import Image
from test_download_server import Handler, serving

from darkroom.store import read_table

PARTS = [f"part-{i:05d}" for i in range(4)]


def jpeg(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (96, 80), (shade, 255 - shade, 7 * shade % 255)).save(out, "JPEG")
    return out.getvalue()


def listed(port: int, number: int) -> str:
    return "URL,TEXT\n" + "".join(
        f"http://127.0.0.1:{port}/{i}.jpg,picture number {i}\n" for i in range(number)
    )


def states(project: TinyProject, *stages: str) -> dict[Path, tuple[int, bytes]]:
    """Every file of some stages' parts of the list: its time and its bytes."""
    folders = [project.results(stage) for stage in stages]
    files = [path for folder in folders for part in PARTS for path in folder.glob(f"{part}.*")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.slow
def test_a_round_fetches_what_failed_and_makes_nothing_again(
    make_tiny_project: Callable[[str], TinyProject], tmp_path: Path
) -> None:
    project = make_tiny_project("retried")
    ill = {0, 11, 12, 31}
    with serving() as server:

        def answer(handler: Handler) -> None:
            number = int(handler.path.strip("/").removesuffix(".jpg"))
            if number in ill:
                handler.answer(b"", 503)
            else:
                # Rows 0 and 5 have the same picture.
                handler.answer(jpeg(5 if number == 0 else number), 200)

        server.routes["/robots.txt"] = server.routes["/404.jpg"]
        for i in range(60):
            server.routes[f"/{i}.jpg"] = answer
        source = {"kind": "list", "path": "list.csv"}
        download = {"allow_networks": ["127.0.0.0/8"], "num_retries": 0, "num_threads": 4}
        dataset = project.read("config/datasets/demo.yaml")
        keep = [{"column": "min_side_px", "min": 64}, {"column": "duplicate", "equals": False}]
        manners = {"host_pause_s": 0, "host_connections": 4}
        changed = {"source": source, "download": download, "keep": keep, "rows_per_part": 10}
        changed |= {"manners": manners}
        project.write("config/datasets/demo.yaml", {**dataset, **changed, "recaption": None})
        project.edit("config/runs/demo.yaml", {"train": {"caption_choice": None}})
        (project.folder / "list.csv").write_text(listed(server.server_port, 38))
        project.run("snakemake", "bucket", "recaption", "--quiet", "all")
        stages = ("download", "score", "filter", "recaption", "bucket")
        before = states(project, *stages)
        refused = project.run("darkroom", "retry", "demo-classes", check=False)
        assert "pictures are files" in refused or "no run in config/runs has this dataset" in refused

        ill -= {0, 12}
        told = project.run("darkroom", "retry", "demo")
        assert "round 1 of demo: 4 rows of 3 parts (http_503 4) are fetched again, in 2 parts" in told
        assert "38 rows: http_503 2, ok 36" in told
        folder = project.results("download")
        assert read_table(folder / "part-r01-00000.parquet").sort("row")["status"].to_list() == [
            "ok",
            "http_503",
            "ok",
        ]
        counts = json.loads((folder / "manifest.json").read_text())["counts"]
        assert (counts["rows"], counts["retried"]) == (38, 4)
        assert project.planned("download") == set()

        # The next stages are made of what is new, and of nothing else.
        planned = project.run("snakemake", "-n", "bucket", "recaption")
        made = set(re.findall(r"part=(part-\S+?),?\s", planned))
        assert made == {"part-r01-00000", "part-r01-00001"}
        project.run("snakemake", "bucket", "recaption", "--quiet", "all")
        assert states(project, *stages) == before
        funnel = json.loads((project.results("filter") / "funnel.json").read_text())
        # Row 0 is a copy of row 5, which was there first.
        assert (funnel["rows"], funnel["kept"]) == (38, 35)
        assert funnel["status"] == {"http_503": 2, "ok": 36}
        counts = json.loads((project.results("filter") / "manifest.json").read_text())["counts"]
        assert (counts["rows"], counts["kept"], counts["dropped"]["download"]) == (38, 35, 2)

        # A round that is interrupted goes on, and is no other one.
        ill.clear()
        rounds = project.folder / "config/retries/demo.yaml"
        first = rounds.read_text()
        told = project.run("darkroom", "retry", "demo", "-n")
        assert "round 2 of demo: 2 rows of 2 parts" in told and "not made yet" in told
        second = rounds.read_text()
        assert second != first
        told = project.run("darkroom", "retry", "demo")
        assert "round 2 of demo is not finished; it goes on" in told and "38 rows: ok 38" in told
        assert rounds.read_text() == second
        told = project.run("darkroom", "retry", "demo")
        assert "none of 38 rows has failed in a way that may pass" in told and rounds.read_text() == second

        # A list that grows makes its new part, and the one that was not full with what was made from that.
        (project.folder / "list.csv").write_text(listed(server.server_port, 43))
        planned = project.run("snakemake", "-n", "download")
        made = set(re.findall(r"part=(part-\S+?),?\s", planned))
        assert made == {"part-00003", "part-00004", "part-r01-00001", "part-r02-00001"}
        project.run("snakemake", "bucket", "recaption", "--quiet", "all")
        assert project.planned("bucket", "recaption") == set()
        after = states(project, *stages)
        # The copies of a whole dataset are looked for again, which the filter reads.
        stays = [path for path in before if path.parent == folder and PARTS[3] not in path.name]
        assert len(stays) == 9 and all(after[path] == before[path] for path in stays)
        funnel = json.loads((project.results("filter") / "funnel.json").read_text())
        assert (funnel["rows"], funnel["kept"], funnel["status"]) == (43, 42, {"ok": 43})
        wrong = [
            line
            for line in project.run("darkroom", "verify", "demo", check=False).splitlines()
            if "part-r" in line
        ]
        assert wrong == []

        # Another clone knows the rounds from the configuration alone.
        clone = make_tiny_project("clone")
        shutil.copytree(project.folder / "config", clone.folder / "config", dirs_exist_ok=True)
        shutil.copy(project.folder / "list.csv", clone.folder)
        planned = clone.run("snakemake", "-n", "download")
        assert set(re.findall(r"part=(part-\S+?),?\s", planned)) == {
            *PARTS, "part-00004", *(f"part-r0{r}-0000{i}" for r in (1, 2) for i in (0, 1))
        }  # fmt: skip
        clone.run("darkroom", "publish", "--write")
        assert "config/retries/demo.yaml" in (clone.folder / "dvc.yaml").read_text()

        # A part that rounds name and the list has no more is an error that says what to do.
        (project.folder / "list.csv").write_text(listed(server.server_port, 8))
        refused = project.run("snakemake", "-n", "download", check=False)
        assert "fetches rows of part-00001 again, which the list does not have" in refused
        os.remove(rounds)
        assert "download_part" in project.planned("download")
        assert "part-r01-00000" in project.run("darkroom", "verify", "demo", check=False)
