"""What `darkroom verify` says of a clone, of a list, and of what DVC recorded."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import TinyProject
from tampering import RUN, copy_of, in_text, in_yaml, put

from darkroom.config import ConfigError, load_project
from darkroom.differences import differences, told
from darkroom.publish.dvclock import Content, read_lock, read_options
from darkroom.publish.lists import check_beside, check_list
from darkroom.publish.verify import Verdict, closing_line, stage_lines, verify
from darkroom.report.times import digest_without_times
from darkroom.sources.listed import ListSource
from darkroom.sources.table import list_columns, write_urls
from darkroom.stages import STAGES
from darkroom.store.found import digests, entries

# A clone without data


@pytest.fixture
def clone(finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Git tracks of a finished project, as the working folder."""
    folder = copy_of(finished_project.folder, tmp_path / "clone")
    shutil.rmtree(folder / "results")
    monkeypatch.chdir(folder)
    return folder


def verdict_here() -> Verdict:
    return verify(load_project("demo"))


@pytest.mark.slow
def test_a_clone_without_data_is_told_what_was_checked_and_what_not(clone: Path) -> None:
    verdict = verdict_here()
    assert verdict.wrong == []
    assert (
        "train      ok: the manifest checked in published/train-demo; results/runs/demo/train is not here"
        in (stage_lines(verdict))
    )
    assert "demo: nothing is wrong with 11 of 11 stages, 0 of whose files are here" in closing_line(verdict)
    in_text("published/evaluate-demo/metrics.json", '"clip_score": ', '"clip_score": 9')(clone)
    (wrong,) = [line for line in verdict_here().wrong if "is not what dvc.lock holds" in line]
    assert wrong.startswith(
        "published/evaluate-demo/metrics.json: is not what dvc.lock holds of evaluate-demo (md5"
    )


@pytest.mark.slow
def test_in_a_clone_without_data_the_chain_and_the_configuration_are_followed(clone: Path) -> None:
    in_yaml("config/runs/demo.yaml", lambda body: body["train"].update(num_steps=13))(clone)
    wrong = verdict_here().wrong
    assert any(
        line.startswith("published/train-demo/manifest.json: was made with other settings")
        and "train.num_steps was 12 and is 13" in line
        for line in wrong
    )
    assert any(
        "dvc.lock: train-demo: was recorded with other options than config/runs/demo.yaml" in w for w in wrong
    )
    # What Git does not have cannot be followed, and dvc.lock still can.
    shutil.rmtree(clone / "published")
    in_yaml("config/runs/demo.yaml", lambda body: body["train"].update(num_steps=12))(clone)
    verdict = verdict_here()
    assert verdict.wrong == []
    assert "train      ok: dvc.lock holds it; results/runs/demo/train is not here" in stage_lines(verdict)
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    lock["stages"]["draw-demo"]["deps"][0]["md5"] = "0" * 32
    put(clone / "dvc.lock", yaml.safe_dump(lock).encode())
    assert (
        "dvc.lock: draw-demo: was made from another results/runs/demo/train/manifest.json"
        in verdict_here().wrong[0]
    )


@pytest.mark.slow
def test_a_run_of_which_nothing_is_here_and_nothing_was_published_is_no_success(clone: Path) -> None:
    in_yaml("config/config.yaml", lambda body: body.update(published=[]))(clone)
    (clone / "dvc.lock").unlink()
    shutil.rmtree(clone / "published")
    assert f"{RUN}/train/manifest.json: missing" in verdict_here().wrong


# Lists


def project_of(path: Path) -> Any:
    source = ListSource(kind="list", path=str(path))
    return SimpleNamespace(dataset=SimpleNamespace(source=source), dataset_name="mine")


def test_a_list_that_was_changed_since_is_found_and_one_that_is_not_here_is_told(tmp_path: Path) -> None:
    path, folder = tmp_path / "list.parquet", tmp_path / "mine"
    folder.mkdir()
    table = pl.DataFrame(
        {"URL": ["https://a.example/1", "https://a.example/2"], "TEXT": ["one", None], "nsfw": [0.1, 2]}
    )
    table.write_parquet(path)
    project = project_of(path)
    write_urls(project.dataset.source, folder / "urls.parquet", list(list_columns(project.dataset.source)))
    here = {"urls.parquet"}
    assert check_list(project, folder, here) == ([], [])
    # Stored differently, and the same rows.
    pl.read_parquet(folder / "urls.parquet").write_parquet(
        folder / "urls.parquet", compression="uncompressed"
    )
    assert check_list(project, folder, here) == ([], [])
    table.with_columns(TEXT=pl.Series(["one", "two"])).write_parquet(path)
    (wrong,), _ = check_list(project, folder, here)
    assert wrong == f"{folder}/urls.parquet: is not what the source lists now: row 1 differs"
    table.vstack(table).write_parquet(path)
    (wrong,), _ = check_list(project, folder, here)
    assert "has 2 rows, and the source's list 4" in wrong
    path.write_bytes(b"no Parquet")
    (wrong,), _ = check_list(project, folder, here)
    assert wrong.startswith("config/datasets/mine.yaml: ")
    path.unlink()
    wrongs, (unchecked,) = check_list(project, folder, here)
    assert not wrongs and "the source's list, which is not here (source.path: no file" in unchecked


def test_what_lies_beside_the_stages_is_named_and_a_linked_dataset_is_none(tmp_path: Path) -> None:
    (tmp_path / "shared/download").mkdir(parents=True)
    (tmp_path / "shared/.driver").mkdir()
    (tmp_path / "shared/features").mkdir()
    (tmp_path / "shared/urls.parquet").touch()
    (tmp_path / "mine").symlink_to(tmp_path / "shared")
    assert check_beside(tmp_path / "mine", {"download"}) == ([], {"urls.parquet"})
    (tmp_path / "shared/train").mkdir()
    wrong, _ = check_beside(tmp_path / "mine", {"download"})
    assert wrong == [f"{tmp_path}/mine/train: a folder, which is no stage's"]


# What DVC records


def test_a_folders_digest_is_dvcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    for name in ("b/c.txt", "b.txt", "a", ".hidden", "b/\N{LATIN SMALL LETTER E WITH ACUTE}.png", "b/d e"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    with Repo.init(no_scm=True) as repo:
        repo.add("folder")
    (recorded,) = yaml.safe_load((tmp_path / "folder.dvc").read_text())["outs"]
    files = [name for name, kind in entries("folder").items() if kind == "file"]
    ours = Content.of_folder({name: digests(f"folder/{name}", with_md5=True) for name in files})
    assert ours == Content(recorded["md5"], recorded["size"], recorded["nfiles"])


def test_options_are_read_as_dvc_writes_them(tmp_path: Path) -> None:
    from dvc.utils.serialize import dumps_yaml

    options = {"epsilon": 1.0e-15, "big": 10**20, "on": "yes", "rate": 0.0001, "name": "1e3x", "time": "1:30"}
    options |= {
        "share": 0.5,
        "whole": 3.0,
        "minus": -4,
        "none": None,
        "is": True,
        "texts": ["12", "0.5", "true", "010"],
    }
    (tmp_path / "lock.yaml").write_text(dumps_yaml(options))
    ours = yaml.safe_dump(options).replace("1.0e-15", "1e-15").replace("0.0001", "1.0E-4")
    assert "1e-15" in ours and "1.0E-4" in ours
    (tmp_path / "ours.yaml").write_text(ours)
    assert read_options(tmp_path / "lock.yaml") == options == read_options(tmp_path / "ours.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [a]", "stages: not as DVC writes them"),
        ("stages: {a: {deps: 3}}", "a: not as DVC writes it"),
        ("stages: {a: {cmd: x, outs: [{path: y}]}}", "a: not as DVC writes it"),
        ("{", "not valid YAML"),
        ("3", "holds int"),
    ],
)
def test_a_lock_that_dvc_did_not_write_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(ConfigError, match=rf"dvc\.lock: .*{message}"):
        read_lock(tmp_path / "dvc.lock")


def test_a_lock_that_is_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dvc.lock")
    with pytest.raises(ConfigError, match=r"dvc\.lock: .*a named pipe"):
        read_lock(tmp_path / "dvc.lock")


def test_differences_name_keys_and_both_values() -> None:
    before = {"train": {"seed": 0, "gone": None, "list": [1]}, "same": {"a": 1.0}}
    now = {"train": {"seed": 1, "list": [1, 2]}, "same": {"a": 1}}
    assert list(differences(before, now)) == [
        ("train.seed", 0, 1),
        ("train.gone", None, differences.__globals__["_NOTHING"]),
        ("train.list", [1], [1, 2]),
    ]
    assert told(before, now) == (
        "train.seed was 0 and is 1, train.gone was None and is nothing, train.list was [1] and is [1, 2]"
    )
    assert told({f"k{i}": 0 for i in range(5)}, {}).endswith(", and 2 more")


# Pages


def test_a_page_is_the_same_whatever_its_times_are_and_no_other_words_pass_for_times(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    text = '<p>x</p><!-- measured --><td class="n">{}</td><!-- /measured --><p>y</p>'
    page.write_text(text.format("3 min 20 s"))
    first = digest_without_times(page, STAGES)
    page.write_text(text.format("2 h 05 min"))
    assert digest_without_times(page, STAGES) == first
    page.write_text(text.format("2 h").replace("y", "z"))
    assert digest_without_times(page, STAGES) != first
    for words in ("2 GPUs", '<b onclick="x">', "<img src=x>", "&lt;", '<td style="width: 3%; color: red">'):
        page.write_text(text.format(words))
        with pytest.raises(ValueError, match=r"report\.html: has .* among its times"):
            digest_without_times(page, STAGES)
