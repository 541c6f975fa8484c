"""`darkroom verify` finds whatever was changed in a finished run behind darkroom's back, and names the file."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from conftest import TinyProject
from tampering import (
    RUN,
    copy_of,
    in_text,
    put,
    refit,
)
from tampering_cases import TAMPERINGS

from darkroom.config import load_project
from darkroom.publish import lists
from darkroom.publish.verify import Verdict, closing_line, verify
from darkroom.sources.base import SourceSection
from darkroom.sources.table import write_urls

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def lists_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The demo draws its world for its list; the same one need not be drawn for each test."""
    kept: dict[str, Path] = {}

    def write_once(
        source: SourceSection, out: Path, columns: list[str], withdrawn: Collection[str] = ()
    ) -> int:
        key = f"{source!r} {columns} {sorted(withdrawn)}"
        if key not in kept:
            folder = tmp_path_factory.mktemp("list")
            write_urls(source, folder / out.name, columns, withdrawn=withdrawn)
            kept[key] = folder
        shutil.copytree(kept[key], out.parent, dirs_exist_ok=True)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "write_urls", write_once)
        yield


@pytest.fixture(scope="module")
def finished(finished_project: TinyProject) -> Path:
    return finished_project.folder


def verdict_of(folder: Path) -> Verdict:
    """What `darkroom verify demo` finds in a project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return verify(load_project("demo"))


def test_nothing_is_wrong_with_a_finished_run(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "copy")
    verdict = verdict_of(folder)
    assert (verdict.wrong, verdict.unchecked) == ([], [])
    assert closing_line(verdict).startswith("demo: nothing is wrong with 11 of 11 stages, ")
    refit(folder)
    assert verdict_of(folder).wrong == [], "what the forgeries below are made with changes nothing by itself"


def test_times_and_modes_do_not_matter(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "copy")
    for number, path in enumerate(sorted((folder / "results").rglob("*.json"))):
        put(path, path.read_bytes())
        path.chmod(0o444 if number % 2 else 0o777)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    in_text(f"{RUN}/report/report.html", "all stages together", "all stages together")(folder)
    text = (folder / RUN / "report/report.html").read_text()
    slower = re.sub(r"(<!-- measured --><div><b>)[^<]*", r"\g<1>3 h 07 min", text)
    assert slower != text
    put(folder / RUN / "report/report.html", slower.encode())
    assert verdict_of(folder).wrong == []


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_change_is_found_and_named(finished: Path, tmp_path: Path, name: str) -> None:
    tamper, told = TAMPERINGS[name]
    folder = copy_of(finished, tmp_path / "copy")
    tamper(folder)
    wrong = verdict_of(folder).wrong
    assert any(re.search(told, line) for line in wrong), wrong
    shutil.rmtree(folder)
