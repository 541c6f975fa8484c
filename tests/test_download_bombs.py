"""A part among whose rows are bombs ends, each row with its word; what it may take is the number that is told."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import ROOT
from hostile import Case, hostile, progressive
from test_download_server import Handler, encoded, picture, serving, settings

from darkroom import store
from darkroom.download.memory import job_bytes, picture_bytes
from darkroom.download.stage import download_part
from darkroom.settings.download import Download

HOST = "http://images.example:80"
NUM_ROWS = 200
# Of which a machine that is fast enough makes a picture, and one with less time none.
LENGTHY = progressive(6_300, 100)


def _bombs() -> list[Case]:
    """Twenty small files, some of which cost more than the part allows."""
    # The one that is decoded, to 36 megapixels, needs more than the others together.
    cases = [case for name, case in hostile(1_000_000).items() if name != "AVIF that announces 6,000 x 6,000"]
    small = [case for case in cases if len(case.make()) < 100_000]
    return [Case(lambda: LENGTHY, "too_costly")] * 3 + small[:17]


def _answer(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(content)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[str], list[tuple[pl.DataFrame, bytes, bytes]]]:
    """The words that the rows should have, and the table and the files of the same part with 1 and 3 processes."""
    folder, bombs = tmp_path_factory.mktemp("bombs"), _bombs()
    expected, found = [], []
    with serving() as server:
        for row in range(NUM_ROWS):
            bomb = bombs[row // 10] if row % 10 == 3 else None
            content = bomb.make() if bomb else encoded(picture(40 + row, 30))
            server.routes[f"/{row}"] = _answer(content)
            expected.append(bomb.status if bomb else "ok")
        urls = [f"{HOST}/{row}" for row in range(NUM_ROWS)]
        rows = {"row": range(NUM_ROWS), "url": urls, "caption": ["words"] * NUM_ROWS}
        pl.DataFrame(rows).write_parquet(folder / "urls.parquet")
        to = {"images.example:80": f"127.0.0.1:{server.server_port}"}
        chosen = settings(max_decode_s=0.3)
        for number in (1, 3):
            tar, table = folder / f"{number}.tar", folder / f"{number}.parquet"
            download_part(folder / "urls.parquet", 0, NUM_ROWS, chosen, tar, table, to, num_decoders=number)
            found.append((store.read_table(table).sort("row"), tar.read_bytes(), table.read_bytes()))
    return expected, found


def test_a_part_with_twenty_bombs_among_two_hundred_pictures_ends_with_a_word_for_each(
    made: tuple[list[str], list[tuple[pl.DataFrame, bytes, bytes]]],
) -> None:
    expected, ((table, _, _), _) = made
    assert table["status"].to_list() == expected
    assert expected.count("ok") >= 180 and expected.count("too_costly") >= 3


def test_a_part_has_the_same_bytes_however_many_processes_decode(
    made: tuple[list[str], list[tuple[pl.DataFrame, bytes, bytes]]],
) -> None:
    _, (one, three) = made
    assert one[1:] == three[1:]


def test_the_docs_and_the_profile_say_what_a_part_may_take() -> None:
    text = (ROOT / "docs/download.md").read_text(encoding="utf-8")
    told = re.search(r"\| ([\d.]+) GB with one, ([\d.]+) GB with two \|", text)
    assert told is not None
    assert [float(number) for number in told.groups()] == [
        round(job_bytes(Download(), number) / 1e9, 1) for number in (1, 2)
    ]
    (decoder,) = re.findall(r"\| of these: each decoder \| .* \| ([\d.]+) GB \|", text)
    assert float(decoder) == round((job_bytes(Download(), 2) - job_bytes(Download(), 1)) / 1e9, 1)
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text(encoding="utf-8"))
    mem_mb = int(profile["set-resources"]["download_part"]["mem_mb"].removeprefix("attempt * "))
    assert mem_mb * 10**6 >= job_bytes(Download(), profile["set-threads"]["download_part"])


def test_the_memory_of_a_part_grows_with_what_it_is_told_to_allow() -> None:
    least = Download(max_pixels=1_000_000, max_bytes=1_000_000)
    larger = least.model_copy(update={"max_pixels": 2_000_000})
    assert job_bytes(larger, 1) - job_bytes(least, 1) >= 22_000_000
    assert job_bytes(least, 4) - job_bytes(least, 3) > picture_bytes(least)
    assert picture_bytes(Download(max_side_px=4_096)) > picture_bytes(Download())


def test_a_part_of_files_ends_with_a_word_for_each_too(tmp_path: Path) -> None:
    from darkroom.config.dataset import parse_source
    from darkroom.sources.base import Part
    from darkroom.sources.table import download_from, write_urls

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in {"good": encoded(picture()), "bomb": LENGTHY, "last": encoded(picture(60))}.items():
        (folder / f"{name}.jpg").write_bytes(content)
        (folder / f"{name}.txt").write_text("words")
    source = parse_source({"kind": "pictures", "folder": str(folder)})
    number = write_urls(source, tmp_path / "urls.parquet", [])
    out = tmp_path / "part.tar", tmp_path / "part.parquet"
    chosen = settings(max_decode_s=0.3)
    counts = download_from(source, Part(tmp_path / "urls.parquet", 0, number, chosen, *out, num_decoders=2))
    assert counts["status"] == {"ok": 2, "too_costly": 1}


def test_the_command_that_measures_costs_ends_well_on_damaged_pictures() -> None:
    command = [sys.executable, "trials/bombs.py", "--mutations", "320", "--megabytes", "0"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"^of 320 pictures the worst took .* \(bound: 20 s\) and .* \(bound: 1109 MB\)$", done.stdout, re.M
    )
