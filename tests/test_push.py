"""`darkroom push`: a model, checked and with its card, into a repository of a hub on loopback."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hf_xet
import pytest
import typer
import yaml
from conftest import TinyProject
from doc_pages import DOCS, commands
from fake_hub import DROP, TOKEN, Failure, Hub, Repository, running_hub
from huggingface_hub import constants
from tampering import RUN, edited, flip
from typer.testing import CliRunner, Result

from darkroom.formats.base import Format
from darkroom.formats.table import FORMATS
from darkroom.push.command import push
from darkroom.push.hub import Pushed, push_files
from darkroom.push.licence import licence_head

NAME = "ann/circles"
CARD = "---\ntags: [darkroom]\n---\n# circles\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the environment names, with waits that are over at once."""
    with running_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        yield found


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Path]:
    """Files as a model's folder has them: path in the repository -> path here."""
    contents = {
        "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}\n',
        "unet/config.json": b"{}\n",
        "unet/diffusion_pytorch_model.safetensors": os.urandom(300_000),
        "vae/diffusion_pytorch_model.safetensors": os.urandom(5_000),
        "tokenizer/merges.txt": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def sent(model: dict[str, Path], card: str = CARD, is_private: bool = True, token: str = TOKEN) -> Pushed:
    return push_files(NAME, model, card, "circles", token, is_private)


def assert_arrived(hub: Hub, model: dict[str, Path]) -> None:
    """What lies in the repository is what lies here, in one commit after the hub's own first one."""
    there = dict(hub.repositories[NAME].files)
    del there[".gitattributes"]
    assert there == {**{name: path.read_bytes() for name, path in model.items()}, "README.md": CARD.encode()}
    assert [paths for _, _, paths in hub.repositories[NAME].commits[1:]] == [[*model, "README.md"]]


@pytest.mark.parametrize("part_size", [1 << 30, 70_000], ids=["whole", "in parts"])
def test_the_bytes_that_arrive_are_those_that_lie_here(
    hub: Hub, model: dict[str, Path], part_size: int
) -> None:
    hub.part_size = part_size
    pushed = sent(model)
    assert_arrived(hub, model)
    repository = hub.repositories[NAME]
    assert repository.private and pushed.is_new and pushed.commit == repository.commits[-1][0]
    assert pushed.url == f"{hub.address}/{NAME}" and pushed.others == ()
    assert bool(hub.sent("POST /lfs/complete")) == (part_size == 70_000)


def test_xet_holds_the_bytes_that_lie_here_where_the_hub_has_it(
    hub: Hub, model: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(ValueError, match=r"(?s)404.*xet-write-token.*HF_HUB_DISABLE_XET=1"):
        sent(model)
    hub.xet = tmp_path / "xet"
    hub.xet.mkdir()
    assert sent(model).is_new and not hub.sent("/lfs/")
    path = model["unet/diffusion_pytorch_model.safetensors"]
    oid = hub.repositories[NAME].oids["unet/diffusion_pytorch_model.safetensors"]
    assert oid == hashlib.sha256(path.read_bytes()).hexdigest()
    (known,) = hf_xet.hash_files([str(path)])
    with hf_xet.XetSession().new_file_download_group(endpoint=f"local://{hub.xet}") as group:
        group.start_download_file(hf_xet.XetFileInfo(known.hash, known.filesize), str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == path.read_bytes()


def test_a_second_push_of_the_same_bytes_makes_no_commit_and_sends_no_weights(
    hub: Hub, model: dict[str, Path]
) -> None:
    first = sent(model)
    hub.asked.clear()
    second = sent(model)
    assert not second.is_new and second.commit == first.commit
    assert not hub.sent("PUT") and not hub.sent("/commit/")
    assert_arrived(hub, model)


def test_another_model_is_a_new_commit_of_what_changed_and_the_rest_is_named(
    hub: Hub, model: dict[str, Path]
) -> None:
    sent(model)
    model["vae/diffusion_pytorch_model.safetensors"].write_bytes(b"other")
    left = model.pop("unet/config.json")
    pushed = sent(model)
    assert pushed.is_new and pushed.others == ("unet/config.json",)
    assert hub.repositories[NAME].commits[-1][2] == ["vae/diffusion_pytorch_model.safetensors"]
    assert hub.repositories[NAME].files["unet/config.json"] == left.read_bytes()


BUSY = {
    "busy when asked for a repository": Failure("POST", "/api/repos/create", 503),
    "too many requests before the sending": Failure("POST", "/preupload/", 429),
    "busy when asked where to send": Failure("POST", "/objects/batch", 503),
    "a store that fails once": Failure("PUT", "/lfs/", 500),
    "a connection that is dropped in an upload": Failure("PUT", "/lfs/", DROP),
    "dropped twice": Failure("PUT", "/lfs/", DROP, times=2),
    "busy when asked for a commit": Failure("POST", "/commit/", 503),
    "busy when the card is looked at": Failure("POST", "/api/validate-yaml", 429),
}


@pytest.mark.parametrize("name", BUSY)
def test_what_fails_for_a_while_is_asked_for_again(
    hub: Hub, model: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure(**vars(BUSY[name]))
    hub.failures = [failure]
    with caplog.at_level(logging.WARNING):
        assert sent(model).is_new
    assert failure.times == 0 and caplog.records
    assert_arrived(hub, model)


@pytest.mark.parametrize("how", [DROP, 500])
def test_an_interrupted_push_goes_on_and_what_arrived_is_not_sent_again(
    hub: Hub, model: dict[str, Path], how: int | str
) -> None:
    big = hashlib.sha256(model["unet/diffusion_pytorch_model.safetensors"].read_bytes()).hexdigest()
    hub.failures = [Failure("PUT", big, how, times=1000)]
    with pytest.raises(ValueError, match=r"(?s)Error while uploading 'unet/.*the same command goes on"):
        sent(model)
    assert len(hub.repositories[NAME].commits) == 1 and len(hub.objects) == 1
    hub.failures, hub.asked = [], []
    assert sent(model).is_new and hub.sent("PUT") == [f"PUT /lfs/{big}"]
    assert_arrived(hub, model)


def test_a_hub_that_stays_busy_is_told(hub: Hub, model: dict[str, Path]) -> None:
    hub.failures = [Failure("POST", "/api/repos/create", 503, times=1000)]
    with pytest.raises(ValueError, match=rf"{NAME} at http://127.0.0.1:\d+: .*(503|busy)"):
        sent(model)
    assert len(hub.sent("/api/repos/create")) == 6


def test_a_token_that_is_refused_or_may_not_write_there_is_told_before_anything_is_sent(
    hub: Hub, model: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=r"the token in HF_TOKEN is refused \(401\)"):
        sent(model, token="hf_of_another")
    with pytest.raises(ValueError, match=r"may not do that \(403\): .*under bob"):
        push_files("bob/circles", model, CARD, "circles", TOKEN, True)
    assert not hub.repositories and not hub.sent("preupload")


def test_a_repository_that_is_there_is_pushed_to_only_if_those_see_it_who_should(
    hub: Hub, model: dict[str, Path]
) -> None:
    repository = hub.repositories[NAME] = Repository(private=False)
    repository.commit("initial commit", [])
    with pytest.raises(ValueError, match=f"{NAME} is there and public: give --public, or name another"):
        sent(model)
    repository.private = True
    with pytest.raises(ValueError, match=f"{NAME} is there and private: its settings on the Hub"):
        sent(model, is_private=False)
    assert not hub.sent("preupload") and len(repository.commits) == 1
    # The hub says 409 to its creation, and it is pushed to.
    assert sent(model).is_new


def test_a_card_that_the_hub_refuses_ends_it_before_weights_are_sent(
    hub: Hub, model: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        sent(model, card="---\nlicense: My Own\n---\n")
    assert not hub.sent("PUT")


# The command


app = typer.Typer()
app.command()(push)


def pushed(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("demo", "circles"), "circles: is no repository, which is written as OWNER/NAME"),
        (("demo", "ann/-x-"), "ann/-x-"),
        (("demo", NAME, "--public"), "--license: missing, and without one nobody may use"),
        (("demo", NAME, "--license", "Apache 2.0"), "--license Apache 2.0: is no id of the Hub's"),
        (("demo", NAME, "--license", "other"), "--license other: needs --license-name and --license-link"),
        (("demo", NAME, "--license", "mit", "--license-name", "x"), "go with --license other"),
        (("demo", NAME, "--format", "onnx"), "--format onnx is none of diffusers, single_file"),
        (("demo", NAME, "--dtype", "float16"), "--dtype goes with --format single_file"),
        (("absent", NAME), "run: no run 'absent' in config/runs; known: demo, "),
        (("sd3-scratch-tiny", NAME), "sd3-scratch-tiny is not finished: "),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_hub_is_asked(
    hub: Hub, arguments: tuple[str, ...], told: str
) -> None:
    result = pushed(*arguments)
    assert result.exit_code == 2 and told in result.output, result.output
    assert not hub.asked


def test_without_a_token_in_the_environment_nothing_is_asked_though_one_was_kept(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN")
    result = pushed("demo", NAME)
    assert result.exit_code == 2 and "HF_TOKEN: missing in the environment" in result.output
    assert not hub.asked


def test_a_licence_without_an_id_has_its_name_and_a_link() -> None:
    assert licence_head("", "", "", is_private=True) == {}
    assert licence_head("apache-2.0", "", "", is_private=False) == {"license": "apache-2.0"}
    found = licence_head("other", "mine", "https://x.example/LICENCE", is_private=False)
    assert found == {"license": "other", "license_name": "mine", "license_link": "https://x.example/LICENCE"}


@pytest.fixture
def finished(finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A finished project that a test may change, as the working folder."""
    project = finished_project.copy(tmp_path / "copy")
    monkeypatch.chdir(project.folder)
    return project


@pytest.mark.slow
def test_a_finished_run_is_pushed_with_a_card_of_its_manifests(
    hub: Hub, finished: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (one for block in commands(DOCS / "reproduce.md") for one in block if "darkroom push" in one)
    asked = command.replace("OWNER/NAME", NAME).split()[2:]
    result = pushed(*asked)
    assert result.exit_code == 0 and re.search(r"circles: \d+ files of demo, public, commit", result.output)
    repository, model = hub.repositories[NAME], finished.results("train") / "model"
    here = {str(path.relative_to(model)): path for path in model.rglob("*") if path.is_file()}
    here = {name: path.read_bytes() for name, path in here.items() if not path.name.startswith(".")}
    there = {name: content for name, content in repository.files.items() if name != ".gitattributes"}
    card = there.pop("README.md").decode()
    del here["README.md"]
    assert there == here and not repository.private
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "diffusers",
        "license": "apache-2.0",
        "pipeline_tag": "text-to-image",
        "tags": ["darkroom"],
    }
    weights = hashlib.sha256(here["transformer/diffusion_pytorch_model.safetensors"]).hexdigest()
    for told in (f'from_pretrained("{NAME}"', "| CLIPScore | ", "12 steps of 8 samples", weights):
        assert told in text, told
    files = re.findall(r"^\| (\S+) \| `", text.split("## Files")[1], re.MULTILINE)
    assert files == sorted(here), "in one order, whatever the disk's"
    assert "THIS FOLDER" not in text and "bundle" not in text
    result = pushed(*asked)
    assert result.exit_code == 0 and f"nothing new, {len(here) + 1} files of demo" in result.output
    assert len(repository.commits) == 2
    # Another package's format, since those of darkroom hold no network of its own.
    weights_alone = Format(
        name="plain", title="the network alone", ending=".plain", families=("mmdit",), instead="", dtypes=("x",),
        tensors=lambda model, dtype: ({}, {}, ["read it slowly"]),
        write=lambda path, *_: path.write_bytes(b"weights"),
    )  # fmt: skip
    monkeypatch.setitem(FORMATS, "plain", weights_alone)
    result = pushed("demo", "ann/plain", "--format", "plain")
    assert result.exit_code == 0 and "note: read it slowly" in result.output, result.output
    files = hub.repositories["ann/plain"].files
    assert set(files) == {".gitattributes", "README.md", "demo.plain"} and files["demo.plain"] == b"weights"
    card = files["README.md"].decode()
    assert "`demo.plain`: the network alone.\n- read it slowly" in card and "library_name" not in card
    assert hashlib.sha256(b"weights").hexdigest() in card
    result = pushed("demo", "ann/single", "--format", "single_file")
    assert (
        result.exit_code == 2
        and "single_file holds" in result.output
        and "ann/single" not in hub.repositories
    )


UNVERIFIED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a weight": (
        flip(f"{RUN}/train/model/transformer/diffusion_pytorch_model.safetensors", 2000),
        "nothing of demo is pushed: results/runs/demo/train/model: changed since",
    ),
    "a score": (
        edited(f"{RUN}/evaluate/metrics.json", lambda body: body["trained"].update(clip_score=99.0)),
        "nothing of demo is pushed: results/runs/demo/evaluate/metrics.json: changed since",
    ),
    "the manifest": (
        edited(f"{RUN}/train/manifest.json", lambda body: body["counts"].update(steps=1000)),
        "demo is not finished: results/runs/demo/draw/manifest.json: was made from another train",
    ),
    "an option": (
        lambda folder: edited_option(folder),
        "demo is not finished: results/runs/demo/train/manifest.json: was made with other settings",
    ),
    "what was published": (
        lambda folder: edited_lock(folder),
        "demo was published as other bytes than are here",
    ),
}


def edited_option(folder: Path) -> None:
    path = folder / "config/runs/demo.yaml"
    values = yaml.safe_load(path.read_text())
    values["train"]["learning_rate"] = 0.0005
    path.write_text(yaml.safe_dump(values))


def edited_lock(folder: Path) -> None:
    path = folder / "dvc.lock"
    values = yaml.safe_load(path.read_text())
    for out in values["stages"]["train-demo"]["outs"]:
        out["md5"] = out["md5"].replace(out["md5"][:4], "0000")
    path.write_text(yaml.safe_dump(values))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNVERIFIED)
def test_a_run_that_is_not_what_it_says_is_not_pushed(hub: Hub, finished: TinyProject, name: str) -> None:
    change, told = UNVERIFIED[name]
    change(finished.folder)
    result = pushed("demo", NAME)
    assert result.exit_code == 2 and told in result.output, result.output
    assert not hub.asked
