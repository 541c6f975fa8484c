"""A contact in the User-Agent, asked for where the source is the web."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import TinyProject
from pydantic import ValidationError
from test_download_server import GOOD, serving, settings

from darkroom.config import load_project
from darkroom.config.dataset import Dataset
from darkroom.download.fetch import PictureOpener
from darkroom.download.manners.crawl import Crawl, check_contact
from darkroom.settings.download import Download, Manners
from darkroom.sources.table import is_fetched
from darkroom.stages import stage_settings

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("contact", "agent"),
    [
        ("crawler@lab.example", r"darkroom/[0-9.]+ \(\+crawler@lab.example\)"),
        ("https://lab.example/crawler?a=1", r"darkroom/[0-9.]+ \(\+https://lab.example/crawler\?a=1\)"),
        ("$CRAWLER", r"darkroom/[0-9.]+ \(\+me@lab.example\)"),
        (None, r"darkroom/[0-9.]+"),
    ],
)
def test_servers_are_told_whom_to_ask(
    contact: str | None, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRAWLER", "me@lab.example")
    with serving() as server:
        opener = PictureOpener(settings(), crawl=Crawl(Manners(contact=contact), None))
        assert opener.open(server.base + "/good.jpg").read() == GOOD
        opener.close()
        assert re.fullmatch(agent, server.seen_headers[0]["User-Agent"])


@pytest.mark.parametrize(
    "contact",
    [
        "",
        "me",
        "me@lab",
        "me@lab.example) (x",
        "me@lab.example\r\nX-Evil: 1",
        "ftp://a.example",
        "ü@a.example",
    ],
)
def test_what_is_no_contact_is_refused_with_what_would_be(contact: str) -> None:
    with pytest.raises(ValidationError, match=r"is no contact; it should be an address of mail, such as"):
        Manners(contact=contact)


def test_it_is_asked_for_where_urls_are_fetched_and_not_from_ones_own_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CONTACT", raising=False)
    with pytest.raises(ValueError, match=r"^manners.contact: pictures are .* manners: \{contact"):
        check_contact(Manners(), Download(), True)
    with pytest.raises(ValueError, match=r"^manners.contact: \$CONTACT: the environment variable CONTACT is"):
        check_contact(Manners(contact="$CONTACT"), Download(), True)
    with pytest.raises(ValueError, match=r"^manners.contact: pictures"):
        check_contact(Manners(), Download(allow_networks=("10.0.0.0/8",)), True)
    check_contact(Manners(contact="a@b.example"), Download(), True)
    check_contact(Manners(), Download(allow_networks=("127.0.0.0/8",)), True)
    check_contact(Manners(), Download(), False)


def test_the_repositorys_lists_of_the_web_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTACT", "a@b.example")
    datasets = [yaml.safe_load(path.read_text()) for path in (ROOT / "config/datasets").glob("*.yaml")]
    lists = [Dataset.model_validate(values) for values in datasets if values["source"]["kind"] == "list"]
    assert len(lists) == 2
    for dataset in lists:
        check_contact(dataset.manners, dataset.download, True)


def test_the_demo_needs_none() -> None:
    demo = load_project("demo", ROOT).dataset
    check_contact(demo.manners, demo.download, is_fetched(demo.source))


def test_manners_change_nothing_of_what_results_are_said_to_be_made_with() -> None:
    project = load_project("demo", ROOT)
    dataset = project.dataset.model_copy(update={"manners": Manners(contact="a@b.example", host_pause_s=9)})
    other = replace(project, datasets={"demo": dataset})
    assert stage_settings(other, "download") == stage_settings(project, "download")


@pytest.mark.slow
def test_a_plan_without_a_contact_is_refused_and_says_what_to_write(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("contact")
    pl.DataFrame({"URL": ["http://a.example/1.jpg"], "TEXT": ["x"]}).write_parquet(
        project.folder / "list.parquet"
    )
    dataset = {
        **project.read("config/datasets/demo.yaml"),
        "source": {"kind": "list", "path": "list.parquet"},
    }
    for key in ("keep", "download", "manners"):
        del dataset[key]
    project.write("config/datasets/demo.yaml", dataset)
    output = project.run("snakemake", "-n", "download", check=False)
    assert "config/datasets/demo.yaml: manners.contact: pictures are fetched from the web" in output
    project.write("config/datasets/demo.yaml", {**dataset, "manners": {"contact": "a@b.example"}})
    assert project.planned("download") == {"urls", "download_part", "download_manifest"}
