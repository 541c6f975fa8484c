"""Code that the folder of a component, or of a model to draw from, carries is never run, and nobody is asked."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from darkroom.captioners.llava import Llava
from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.components.image_classifier import load_image_classifier
from darkroom.components.text_encoders import load_text_encoder
from darkroom.formats.diffusers import load_pipeline

CODE = """
import pathlib
from transformers import PretrainedConfig, PreTrainedModel
pathlib.Path({mark!r}).write_text("it ran")
class PlantedConfig(PretrainedConfig):
    model_type = "planted"
class Planted(PreTrainedModel):
    config_class = PlantedConfig
"""
# By every name that one of transformers' own classes looks for.
CLASSES = ("AutoModel", "AutoModelForImageClassification", "AutoModelForImageTextToText", "AutoTokenizer")
CLASSES += ("AutoProcessor", "AutoImageProcessor")


def plant(folder: Path, mark: Path) -> Path:
    """A folder whose files all say that code beside them makes what they are."""
    folder.mkdir(parents=True)
    (folder / "planted.py").write_text(CODE.format(mark=str(mark)))
    told = {"AutoConfig": "planted.PlantedConfig", **dict.fromkeys(CLASSES, "planted.Planted")}
    told["AutoTokenizer"] = ["planted.Planted", None]  # type: ignore[assignment]
    config = {"model_type": "planted", "architectures": ["PlantedForImageClassification"], "auto_map": told}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        (folder / name).write_text(json.dumps(config))
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").write_text("{}")
    return folder


def _pipeline_of(part: list[str]) -> Callable[[Path], object]:
    """A model to draw from, one of whose parts is of this class."""

    def load(folder: Path) -> object:
        index = {"_class_name": "StableDiffusionPipeline", "text_encoder": part}
        (folder.parent / "model_index.json").write_text(json.dumps(index))
        folder.rename(folder.parent / "text_encoder")
        return load_pipeline(folder.parent)

    return load


LOADS: dict[str, Callable[[Path], object]] = {
    "text encoder": lambda folder: load_text_encoder(Component(kind="text_encoder", path=str(folder))),
    "classifier": lambda folder: load_image_classifier(Component(kind="image_classifier", path=str(folder))),
    "captioner": lambda folder: Llava(Component(kind="captioner", path=str(folder)), "float32"),
    "encoder of a model": _pipeline_of(["transformers", "AutoModel"]),
    "tokenizer of a model": _pipeline_of(["transformers", "AutoTokenizer"]),
    "no class of transformers": _pipeline_of(["transformers", "pipeline"]),
    "no class for folders": _pipeline_of(["transformers", "Trainer"]),
    "a module of the folder": _pipeline_of(["planted", "Planted"]),
}


@pytest.mark.parametrize("name", LOADS)
def test_code_in_a_folder_is_not_run_and_nobody_is_asked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    # Whoever sits at a terminal might say yes.
    monkeypatch.setattr("builtins.input", lambda told="": asked.append(told) or "y")
    mark = tmp_path / "mark"
    with pytest.raises(ValueError):
        LOADS[name](plant(tmp_path / "model/part", mark))
    assert asked == [] and not mark.exists()


def test_code_beside_a_model_that_transformers_knows_is_not_run_either(tmp_path: Path) -> None:
    from tiny_encoders import write_t5

    mark, folder = tmp_path / "mark", write_t5(tmp_path / "t5", 16)
    plant(tmp_path / "other", mark)
    os.link(tmp_path / "other/planted.py", folder / "planted.py")
    for name in ("config.json", "tokenizer_config.json"):
        told = json.loads((folder / name).read_text())
        told["auto_map"] = json.loads((tmp_path / "other" / name).read_text())["auto_map"]
        (folder / name).write_text(json.dumps(told))
    assert load_text_encoder(Component(kind="text_encoder", path=str(folder))) is not None
    assert not mark.exists()


STOCK = "StableDiffusionPipeline"


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("[" * 200_000, r"model_index.json: is no JSON \(it is nested too deeply\)"),
        ("", r"model_index.json: is no JSON"),
        ("[1]", r"model_index.json: names no pipeline"),
        ("{}", r"model_index.json: names no pipeline"),
        ('{"_class_name": "logging"}', r"holds a logging: neither darkroom's nor diffusers'"),
        ('{"_class_name": 5}', r"holds a 5: neither"),
        ('{"_class_name": ["a", "b", "c"]}', r"holds a \['a', 'b', 'c'\]: neither"),
        ('{"_class_name": ["os", "system"]}', r"holds a \['os', 'system'\]: neither"),
        (json.dumps({"_class_name": STOCK}), rf"has not the parts of a {STOCK}"),
        # A part is a folder below the model's.
        (
            json.dumps({"_class_name": STOCK, "../away": ["transformers", "AutoModel"]}),
            r"has not the parts of",
        ),
    ],
)
def test_an_index_that_names_no_whole_model_is_refused(tmp_path: Path, index: str, told: str) -> None:
    plant(tmp_path / "away", tmp_path / "mark")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_text(index)
    with pytest.raises(ValueError, match=told):
        load_pipeline(tmp_path / "model")
    assert not (tmp_path / "mark").exists()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _deep(path: Path) -> None:
    header = b'{"a":' + b"[" * 200_000
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_pipe, r"more.safetensors is no regular file"),
        (Path.mkdir, r"more.safetensors is no regular file"),
        (lambda path: path.symlink_to("nowhere"), r"more.safetensors is no regular file"),
        (_deep, r"more.safetensors is no safetensors file; fetch it again"),
    ],
)
def test_weights_that_no_file_is_are_refused_and_nobody_waits(
    tmp_path: Path, make: Callable[[Path], None], told: str
) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(ROOT / "src/darkroom_demo/components/vae", folder)
    check_component(Component(kind="vae", path=str(folder)))
    make(folder / "more.safetensors")
    with pytest.raises(ValueError, match=told):
        check_component(Component(kind="vae", path=str(folder)))
