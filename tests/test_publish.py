"""A finished run becomes a published one, is signed, and is made again and compared."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TinyProject
from tampering import RUN, Tamper, add, copy_of, edited, flip, in_text, pipe, put, refit_lock, remove

from darkroom.config import ConfigError, load_project
from darkroom.publish.add import with_run
from darkroom.publish.bundle import bundle_path, stages_by_card_name, write_bundle
from darkroom.publish.card import card_text
from darkroom.publish.listed import chain_of
from darkroom.publish.reproduce import prepare
from darkroom.publish.signature import sign
from darkroom.publish.stages import stage_entry
from darkroom.publish.verify import Verdict, verify
from darkroom.stages import stage_settings

RUNS = sorted(path.stem for path in (ROOT / "config/runs").glob("*.yaml"))
METRICS = json.loads((ROOT / "published/evaluate-demo/metrics.json").read_text())
BUNDLE, CARD = "published/runs/demo/bundle.json", "published/runs/demo/README.md"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of two people, and the file that allows the first one to sign."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "signers").write_text(f"alice@example.org {(folder / 'alice.pub').read_text()}")
    return folder


# The list of published runs


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("run: demo\n", "run: demo\npublished: [mine]\n"),
        ("run: demo\npublished:\n", "run: demo\npublished: [mine]\n"),
        ("# x\npublished: [demo]  # y\nrun: demo\n", "# x\npublished: [demo, mine]  # y\nrun: demo\n"),
        ("published: []\n", "published: [mine]\n"),
        ("published: [demo,\n  other]\nrun: demo", "published: [demo, other, mine]\nrun: demo"),
        ("published:\n  - demo\n  # y\nrun: demo\n", "published:\n  - demo\n  - mine\n  # y\nrun: demo\n"),
        ("published:  # y\n- demo\n- other\n", "published:  # y\n- demo\n- other\n- mine\n"),
    ],
)
def test_a_run_is_added_to_the_list_and_comments_stay(before: str, after: str) -> None:
    assert with_run(before, "mine") == after


def test_a_list_that_cannot_be_added_to_is_told() -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: published: add mine to this list by hand"):
        with_run("a: &list [demo]\npublished: *list\n", "mine")


@pytest.mark.parametrize("run", RUNS)
def test_every_run_of_the_repository_can_be_published(run: str) -> None:
    project = load_project(run, ROOT)
    stages = stages_by_card_name(project)
    manifests = {
        name: {"params": stage_settings(*of), "counts": {}, "files": {"model": "ab" * 32}}
        for name, of in stages.items()
    }
    card = card_text(project, manifests, METRICS)
    optimizer = f"| optimizer | {project.run.train.optimizer}, learning rate "
    told = [f"# {run}\n", f"| dataset | {project.dataset_name}, a source", optimizer, "ab" * 32]
    assert not [line for line in told if line not in card]
    entries = [stage_entry(of, stage) for of, stage in chain_of(project)]
    assert all(entry["cmd"].startswith("snakemake ") and entry["outs"] for entry in entries)


@pytest.mark.slow
def test_publishing_a_finished_run_leaves_a_clone_that_anybody_can_check(
    finished_project: TinyProject, tmp_path: Path, keys: Path
) -> None:
    project = finished_project.copy(tmp_path / "copy")
    for name in ("dvc.lock", "dvc.yaml"):
        (project.folder / name).unlink()
    shutil.rmtree(project.folder / "published")
    put(project.folder / "config/config.yaml", b"# The run.\nrun: demo\npublished: []\n")
    output = project.run("darkroom", "publish", "demo", "--sign", str(keys / "alice"))
    assert "config/config.yaml lists demo" in output and "demo is published: git add" in output
    assert (project.folder / "config/config.yaml").read_text() == "# The run.\nrun: demo\npublished: [demo]\n"
    assert (
        "[demo](published/runs/demo/README.md) | 12 (demo) | 0." in (project.folder / "README.md").read_text()
    )
    assert "up to date" in project.run("dvc", "status")
    shutil.rmtree(project.folder / "results")
    verdict = project.run("darkroom", "verify", "demo", "--signers", str(keys / "signers"))
    assert (
        "demo: nothing is wrong with 11 of 11 stages" in verdict and "signed by alice@example.org" in verdict
    )
    card = (project.folder / CARD).read_text()
    digest = json.loads((project.folder / "published/train-demo/manifest.json").read_text())["files"]["model"]
    for told in ("library_name: diffusers", "| CLIPScore | ", "| training | 12 steps of 8 samples |", digest):
        assert told in card, told
    unfinished = project.run("darkroom", "publish", "sd3-scratch-tiny", check=False)
    assert "sd3-scratch-tiny is not finished: results/datasets/" in unfinished
    assert "snakemake --config run=sd3-scratch-tiny" in unfinished


# Signatures


@pytest.fixture
def published(finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Git tracks of a finished project, as the working folder."""
    folder = copy_of(finished_project.folder, tmp_path / "clone")
    shutil.rmtree(folder / "results")
    monkeypatch.chdir(folder)
    return folder


def verdict_here(signers: Path | None = None) -> Verdict:
    return verify(load_project("demo"), signers)


@pytest.mark.slow
def test_a_signed_run_names_who_signed_it(published: Path, keys: Path) -> None:
    assert verdict_here(keys / "signers").wrong == [f"{BUNDLE}.sig: missing, so nobody signed demo"]
    assert sign(bundle_path("demo"), keys / "alice") == Path(f"{BUNDLE}.sig")
    verdict = verdict_here(keys / "signers")
    assert verdict.wrong == []
    assert verdict.signed_by.startswith("alice@example.org (ED25519 key SHA256:")
    assert f"{BUNDLE}.sig: whose signature it is; give --signers FILE" in verdict_here().unchecked


def signed_by(key: str, namespace: str = "darkroom") -> Callable[[Path, Path], None]:
    def tamper(folder: Path, keys: Path) -> None:
        (folder / f"{BUNDLE}.sig").unlink()
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(keys / key), "-n", namespace, BUNDLE]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    return tamper


def after(tamper: Tamper) -> Callable[[Path, Path], None]:
    return lambda folder, _: tamper(folder)


FORGERIES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "somebody else's signature": (signed_by("mallory"), r"bundle\.json\.sig: nobody of .*signers signed"),
    "a signature of something else": (signed_by("alice", "git"), r"bundle\.json\.sig: is no signature of"),
    "a digest in the bundle": (after(flip(BUNDLE, 100)), r"bundle\.json: is not that of the manifests"),
    "a number on the card": (
        after(in_text(CARD, "12 steps", "1200 steps")),
        r"README\.md: is not that of the",
    ),
    "a signature of nothing": (
        after(lambda f: put(f / f"{BUNDLE}.sig", b"x")),
        r"bundle\.json\.sig: nobody of",
    ),
    "no bundle": (after(remove(BUNDLE)), r"bundle\.json: missing, so nobody signed demo"),
    "no card": (after(remove(CARD)), r"README\.md: cannot be read"),
    "a copy gone": (after(remove("published/draw-demo/manifest.json")), r"draw-demo/manifest\.json: missing"),
    "a file beside the bundle": (
        after(add("published/runs/demo/x")),
        r"published/runs/demo/x: no file of the",
    ),
    "a pipe for a signature": (after(pipe(f"{BUNDLE}.sig")), r"bundle\.json\.sig: a named pipe"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_bundle_card_or_signature_is_found(published: Path, keys: Path, name: str) -> None:
    sign(bundle_path("demo"), keys / "alice")
    forge, told = FORGERIES[name]
    forge(published, keys)
    wrong = verdict_here(keys / "signers").wrong
    assert any(re.search(told, line) for line in wrong), wrong


@pytest.mark.slow
def test_only_a_signature_tells_when_everything_was_forged(
    finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Path
) -> None:
    folder = copy_of(finished_project.folder, tmp_path / "copy")
    monkeypatch.chdir(folder)
    signature = sign(bundle_path("demo"), keys / "alice").read_bytes()
    edited(f"{RUN}/evaluate/metrics.json", lambda body: body["trained"].update(clip_score=99.0))(folder)
    refit_lock(folder)
    for stage, copy in (
        (path.parent.name.partition("-")[0], path) for path in folder.glob("published/*-*/*")
    ):
        (result,) = folder.glob(f"results/*/*/{stage}/{copy.name}")
        put(copy, result.read_bytes())
    assert write_bundle(load_project("demo"))[-1].startswith(
        f"{BUNDLE}.sig was of another bundle and is removed"
    )
    assert verdict_here().wrong == [], "results, copies, card, bundle and dvc.lock fit each other"
    (folder / f"{BUNDLE}.sig").write_bytes(signature)
    (wrong,) = verdict_here(keys / "signers").wrong
    assert wrong.startswith(f"{BUNDLE}.sig: is no signature of {BUNDLE} by alice@example.org")


def test_allowed_signers_that_are_no_file_are_refused(tmp_path: Path) -> None:
    from darkroom.publish.signature import check_signature

    os.mkfifo(tmp_path / "signers")
    for name in ("signers", "absent"):
        with pytest.raises(
            ValueError, match=f"{name}: no file; it should hold a line for each allowed signer"
        ):
            check_signature(tmp_path / "x", tmp_path / "x.sig", tmp_path / name)


# Made again


@pytest.fixture
def again(finished_project: TinyProject, tmp_path: Path) -> TinyProject:
    """A finished project, and in `again` what `darkroom reproduce` made of it but for its metrics."""
    project = finished_project.copy(tmp_path / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        prepare(Path("again"))
    for name in ("results", "checkpoints", "logs", ".snakemake"):
        shutil.copytree(project.folder / name, project.folder / "again" / name, symlinks=True)
    shutil.rmtree(project.folder / "again" / RUN / "evaluate")
    return project


@pytest.mark.slow
def test_a_run_that_is_made_again_is_compared_metric_by_metric_and_leaves_what_was_published(
    again: TinyProject,
) -> None:
    before = {path: path.read_bytes() for path in published_files(again.folder)}
    output = again.run("darkroom", "reproduce", "demo", "--folder", "again", "--quiet", "all")
    assert "\ngeneval                the same bytes\n" in output
    assert output.endswith("\ndemo: the same bytes\n")
    # As on another kind of CPU: a metric's numbers differ a little, another's beyond its interval.
    edited(f"again/{RUN}/evaluate/metrics.json", within("clip_score", "low"))(again.folder)
    edited(
        f"again/{RUN}/measure/manifest.json", lambda body: body["files"].update({"clip_score.parquet": "0"})
    )(again.folder)
    output = again.run("darkroom", "reproduce", "demo", "--folder", "again", "--touch", check=False)
    assert "the first stage with other bytes than dvc.lock holds: measure-demo" in output
    assert "\nclip_score             within the published intervals\n" in output
    assert "demo: within the published intervals" in output
    edited(f"again/{RUN}/evaluate/metrics.json", lambda body: body["trained"].update(far("clip_score")))(
        again.folder
    )
    output = again.run("darkroom", "reproduce", "demo", "--folder", "again", "--touch", check=False)
    assert "demo: different in clip_score" in output
    assert {path: path.read_bytes() for path in published_files(again.folder)} == before


def published_files(folder: Path) -> list[Path]:
    found = [folder / "dvc.lock", folder / "dvc.yaml", folder / "config/config.yaml"]
    return found + [
        path for top in ("results", "published") for path in sorted((folder / top).rglob("*.json"))
    ]


def within(name: str, end: str) -> Callable[[dict], None]:
    def change(body: dict) -> None:
        body["trained"][name] = body["trained"][f"{name}_{end}"]

    return change


def far(name: str) -> dict[str, float]:
    return {name: 1.0, f"{name}_low": 0.5, f"{name}_high": 1.5}
