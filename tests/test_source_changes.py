"""A list or folder that changes after it was downloaded is seen, and what was made from it is made again."""

import os
import re
from collections.abc import Callable

import pytest
from conftest import ROOT, TinyProject
from PIL import Image

from darkroom.store import part_index, part_name, read_table


def rows(num: int, **captions: str) -> str:
    """A CSV list of addresses that nobody contacts: they are of this machine."""
    told = {f"row{i}": f"picture {i}" for i in range(num)} | captions
    return "URL,TEXT\n" + "".join(f"http://127.0.0.1/{name}.jpg,{text}\n" for name, text in told.items())


def test_parts_have_as_many_digits_as_needed() -> None:
    found = re.search(r'part=r"(.*)"', (ROOT / "Snakefile").read_text())
    assert found
    for index in (0, 99_999, 100_000, 2_345_678):
        name = part_name(index)
        assert re.fullmatch(found[1], name) and part_index(name) == index


@pytest.mark.slow
def test_of_a_list_that_grows_or_is_written_again_only_parts_whose_rows_changed_are_made(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("growing")
    dataset = project.read("config/datasets/demo.yaml")
    source, download = {"kind": "list", "path": "list.csv"}, {"num_threads": 1}
    manners = {**dataset["manners"], "contact": "tests@darkroom.example"}
    values = {**dataset, "source": source, "keep": [], "rows_per_part": 4, "download": download}
    values["manners"] = manners
    project.write("config/datasets/demo.yaml", values)
    folder, listed = project.folder / "results/datasets/demo/download", project.folder / "list.csv"

    def parts() -> list[int]:
        """The parts that would be made."""
        output = project.run("snakemake", "-n", "download")
        return sorted(
            int(number)
            for number in re.findall(r"^rule download_part:.*?part=part-(\d+)", output, re.M | re.S)
        )

    def times() -> list[int]:
        return [
            (folder / f"part-{i:05d}.tar").stat().st_mtime_ns for i in range(len(list(folder.glob("*.tar"))))
        ]

    listed.write_text(rows(10))
    project.run("snakemake", "download", "--quiet", "all")
    assert project.planned("download") == set()
    before = times()
    # Touched, it is the same list.
    os.utime(listed)
    assert project.planned("download") == set()
    listed.write_text(rows(13, row5="other words"))
    assert project.planned("download") == {"urls", "download_part", "download_manifest"}
    assert parts() == [1, 2, 3]
    # As if the driver had been killed here: the list is new, the parts are not.
    project.run("snakemake", "results/datasets/demo/urls.parquet", "--quiet", "all")
    assert parts() == [1, 2, 3]
    project.run("snakemake", "results/datasets/demo/download/part-00002.tar", "--quiet", "all")
    assert parts() == [1, 3]
    project.run("snakemake", "download", "--quiet", "all")
    assert project.planned("download") == set() and times()[0] == before[0]
    tables = [read_table(folder / f"part-{i:05d}.parquet") for i in range(4)]
    assert [len(table) for table in tables] == [4, 4, 4, 1]
    assert "other words" in tables[1]["caption"]


@pytest.mark.slow
def test_a_picture_that_is_replaced_reaches_its_part_though_the_list_was_made_since(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("replaced")
    dataset = project.read("config/datasets/demo.yaml")
    source = {"kind": "pictures", "folder": "mine"}
    project.write("config/datasets/demo.yaml", {**dataset, "source": source, "keep": []})
    picture = project.folder / "mine/one.png"
    picture.parent.mkdir()
    picture.with_suffix(".txt").write_text("one picture")
    Image.new("RGB", (40, 30), "red").save(picture)
    project.run("snakemake", "download", "--quiet", "all")
    Image.new("RGB", (50, 60), "blue").save(picture)
    # As if the driver had been killed here.
    project.run("snakemake", "results/datasets/demo/urls.parquet", "--quiet", "all")
    assert "download_part" in project.planned("download")
    project.run("snakemake", "download", "--quiet", "all")
    table = read_table(project.folder / "results/datasets/demo/download/part-00000.parquet")
    assert table.select("width", "height").rows() == [(50, 60)]
