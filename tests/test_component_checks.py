"""A component that is not there or does not fit is refused before any job, and no library is loaded for that."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from darkroom.components.base import Component
from darkroom.components.check import NEEDS, check_component, check_safetensors

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "src/darkroom_demo/components"
COMMIT = "0a" * 20


def component(kind: str, path: Any, **more: Any) -> Component:
    return Component(kind=kind, path=str(path), **more)


def test_the_demos_components_are_fine_and_every_kind_is_known() -> None:
    listed = yaml.safe_load((ROOT / "config/components.yaml").read_text())
    demo = [Component(**values) for values in listed.values() if "_demo" in values["path"]]
    assert {found.kind for found in demo} == {"vae", "text_encoder", "clip", "captioner", "image_classifier"}
    for found in demo:
        check_component(found.model_copy(update={"path": str(ROOT / found.path)}))
    assert set(NEEDS) == set(Component.model_fields["kind"].annotation.__args__)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("vae", "config.json", r"has no config.json, which a vae has"),
        (
            "vae",
            "diffusion_pytorch_model.safetensors",
            r"has no diffusion_pytorch_model.safetensors, which a vae",
        ),
        (
            "clip",
            "model.safetensors",
            r"has no model.safetensors or open_clip_model.safetensors or open_clip_py",
        ),
        ("clip", "preprocessor_config.json", r"has no preprocessor_config.json or processor_config.json"),
        ("clip", "merges.txt", r"has no tokenizer \(vocab.json and merges.txt, or tokenizer.json\), nor has"),
        ("captioner", "config.json", r"has no config.json, which a captioner has"),
        ("captioner", "model.safetensors", r"has no model.safetensors or model.safetensors.index.json"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(
    tmp_path: Path, kind: str, name: str, told: str
) -> None:
    shutil.copytree(DEMO / kind, tmp_path / kind)
    check_component(component(kind, tmp_path / kind))
    (tmp_path / kind / name).unlink()
    with pytest.raises(ValueError, match=told):
        check_component(component(kind, tmp_path / kind))


def test_a_folder_of_another_kind_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"has no diffusion_pytorch_model.safetensors, which a vae has|no config"
    ):
        check_component(component("vae", DEMO / "clip"))
    with pytest.raises(ValueError, match=r"vae has no subfolder nowhere"):
        check_component(component("vae", DEMO / "vae", subfolder="nowhere"))


def test_a_tokenizer_may_lie_beside_its_encoder_as_diffusers_has_it(tmp_path: Path) -> None:
    encoder, tokenizer = tmp_path / "text_encoder_2", tmp_path / "tokenizer_2"
    shutil.copytree(DEMO / "clip", encoder)
    with_subfolder = component("text_encoder", tmp_path, subfolder="text_encoder_2")
    tokenizer.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.move(encoder / name, tokenizer / name)
    check_component(with_subfolder)
    (tokenizer / "merges.txt").unlink()
    with pytest.raises(ValueError, match=r"text_encoder_2 has no tokenizer .*, nor has .*tokenizer_2"):
        check_component(with_subfolder)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[:-1], r"has [\d,]+ bytes and should have [\d,]+; fetch it again"),
        (lambda content: content + b"\0", r"has [\d,]+ bytes and should have [\d,]+; fetch it again"),
        (lambda content: content[:6], r"is no whole safetensors file; fetch it again"),
        (lambda content: content[:100], r"is no whole safetensors file; fetch it again"),
        (lambda content: content[:8] + b"x" * (len(content) - 8), r"is no safetensors file; fetch it again"),
        (lambda content: b"", r"is no whole safetensors file; fetch it again"),
        (
            lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            r"is a pointer of Git LFS, not the file: `git lfs pull` fetches it",
        ),
    ],
)
def test_weights_that_are_no_whole_file_are_refused(tmp_path: Path, damage: Any, told: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage((DEMO / "vae/diffusion_pytorch_model.safetensors").read_bytes()))
    with pytest.raises(ValueError, match=told):
        check_safetensors(path)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"path": "components/clip"},
            r"no folder components/clip here, nor a repository .* within reach: \S",
        ),
        (
            {"path": "components/clip", "revision": "COMMIT"},
            r"`revision` should be a commit, .*; it is COMMIT",
        ),
        ({"path": "openai/clip", "revision": "main"}, r"`revision` should be a commit, .*; it is main"),
        ({"path": "./components/clip"}, r"no folder ./components/clip here, and it is no repository's name"),
        ({"path": "components"}, r"no folder components here, and it is no repository's name"),
        ({"path": "/models/clip"}, r"no folder /models/clip here, and it is no repository's name"),
    ],
)
def test_what_is_neither_a_folder_nor_a_repository_within_reach_is_refused(
    values: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    with pytest.raises(ValueError, match=told):
        check_component(component("clip", **values))


def test_a_repository_that_was_fetched_before_is_looked_at_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    folder = tmp_path / "models--openai--clip/snapshots" / COMMIT
    shutil.copytree(DEMO / "clip", folder)
    found = component("clip", "openai/clip", revision=COMMIT)
    check_component(found)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no preprocessor_config.json"):
        check_component(found)


def test_a_repository_that_the_hub_has_is_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info",
        lambda self, path, revision, timeout: asked.append((path, revision)),
    )
    check_component(component("clip", "openai/clip", revision=COMMIT))
    assert asked == [("openai/clip", COMMIT)]


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, darkroom.components.check; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"], capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "diffusers", "huggingface_hub"} & set(json.loads(done.stdout))
