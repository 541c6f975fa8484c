"""`config/autoencoders/NAME.yaml`: what is wrong in it is told with file and key, and what makes which stage."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.autoencoder.project import load_autoencoder
from darkroom.config import ConfigError
from darkroom.config.load import merge

ROOT = Path(__file__).parents[1]
FILE = "config/autoencoders/demo.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's configuration, to change."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(project: Path, changes: dict[str, Any], name: str = "demo") -> None:
    path = project / f"config/autoencoders/{name}.yaml"
    old = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump(merge(old, changes)))


def test_every_autoencoder_of_the_repository_is_valid() -> None:
    names = [path.stem for path in (ROOT / "config/autoencoders").glob("*.yaml")]
    assert "demo" in names and all(load_autoencoder(name, ROOT) for name in names)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"crop": 64}, "crop: unknown key; did you mean 'crop_px'"),
        ({"dataset": "dmeo"}, "dataset: no dataset 'dmeo' in .*did you mean 'demo'"),
        ({"reference": "demo-vea"}, "reference: no vae 'demo-vea' in .*did you mean 'demo-vae'"),
        ({"reference": "demo-clip"}, "reference: 'demo-clip' is a clip, not a vae"),
        ({"crop_px": 60}, "crop_px: 60 is no multiple of 16, .* of the reference demo-vae; write 64"),
        ({"network": None}, "give either initial .* or network"),
        ({"initial": "demo-vae"}, "give either initial .* or network"),
        ({"network": {"norm_num_groups": 5}}, "network: norm_num_groups 5 does not divide the 16 of"),
        ({"loss": {"perceptual": {"kind": "clp"}}}, r"loss.perceptual.kind: .*'clp'"),
        ({"loss": {"perceptual": {"clip": "demo-text"}}}, "loss.perceptual.clip: 'demo-text' is a text_encoder"),
        ({"loss": {"perceptual": {"weight": 0}}}, "loss.perceptual.weight: .*greater than 0; it is 0"),
        ({"loss": {"adversarial": {"start_step": 1200}}}, "loss.adversarial.start_step: 1200 is not before"),
        ({"train": {"num_warmup_steps": 1200}}, "train: num_warmup_steps 1200 must be below num_steps 1200"),
        ({"train": {"num_steps": True}}, "train: num_steps is true; it should be a number"),
        ({"held_out": {"share": 1.0}}, "held_out.share: .*less than 1; it is 1.0"),
        ({"extends": "dmeo"}, "extends: no autoencoder 'dmeo' in .*did you mean 'demo'"),
        ({"extends": "../x"}, "extends: '../x' cannot be the name of an autoencoder"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_file_and_its_place(
    project: Path, changes: dict[str, Any], told: str
) -> None:
    edit(project, {"train": {"num_steps": 1200}})
    edit(project, changes)
    with pytest.raises(ConfigError, match=f"^(.*\n)*{FILE}: {told}"):
        load_autoencoder("demo")


def test_one_extends_another_and_may_go_on_from_a_vae(project: Path) -> None:
    edit(project, {"extends": "demo", "initial": "demo-vae", "network": None}, "finer")
    finer, demo = load_autoencoder("finer"), load_autoencoder("demo")
    assert finer.autoencoder.train == demo.autoencoder.train and finer.autoencoder.network is None
    assert finer.component_names("train") == ["demo-clip", "demo-vae"]
    edit(project, {"extends": "demo", "reference": "finer"}, "finer")
    with pytest.raises(ConfigError, match=r"finer\.yaml: reference: no vae 'finer'"):
        load_autoencoder("finer")


def test_only_an_autoencoder_kl_can_be_gone_on_from(project: Path) -> None:
    (project / "other").mkdir()
    (project / "other/config.json").write_text(json.dumps({"_class_name": "AutoencoderDC"}))
    components = project / "config/components.yaml"
    components.write_text(components.read_text() + "\nother: {kind: vae, path: other}\n")
    edit(project, {"initial": "other", "network": None})
    with pytest.raises(ConfigError, match="initial: other is a AutoencoderDC; name an AutoencoderKL"):
        load_autoencoder("demo")


def test_what_it_is_compared_with_trains_nothing_again(project: Path) -> None:
    before = load_autoencoder("demo")
    edit(project, {"initial": "demo-vae", "network": None}, "demo")
    assert load_autoencoder("demo").settings("train") != before.settings("train")
    assert load_autoencoder("demo").settings("compare") == before.settings("compare")
    (project / FILE).write_text((ROOT / FILE).read_text())
    edit(project, {"held_out": {"max_pictures": 3}, "description": "other"})
    after = load_autoencoder("demo")
    assert after.settings("train") == before.settings("train")
    assert after.settings("compare") != before.settings("compare")
    assert after.component_names("train") == ["demo-clip"]
    assert after.component_names("compare") == ["demo-clip", "demo-vae"]
