"""Weights that lack some are refused by name: libraries go on with random numbers in their place."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from safetensors.torch import load_file, save_file

from darkroom.captioners.checkpoints import load
from darkroom.components.base import Component
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import load_vae

DEMO = Path(__file__).parents[1] / "src/darkroom_demo/components"


@pytest.mark.parametrize(
    ("kind", "name"), [("vae", "vae"), ("text_encoder", "t5"), ("captioner", "captioner")]
)
def test_a_component_that_lacks_a_tensor_is_refused_by_its_name(kind: str, name: str, tmp_path: Path) -> None:
    shutil.copytree(DEMO / name, tmp_path / name)
    (weights,) = (tmp_path / name).glob("*.safetensors")
    tensors = load_file(weights)
    lost = next(key for key in sorted(tensors) if key.endswith("norm.weight") or "conv_in.weight" in key)
    save_file({key: value for key, value in tensors.items() if key != lost}, weights, {"format": "pt"})
    component = Component(kind=kind, path=str(tmp_path / name))  # type: ignore[arg-type]
    loaders: dict[str, Callable[[Component], object]] = {
        "vae": load_vae,
        "text_encoder": load_text_encoder,
        "captioner": lambda of: load(
            of,
            "captioner",
            transformers.AutoModelForImageTextToText,
            transformers.AutoProcessor,
            "x",
            "float32",
        ),
    }
    # The class may have another prefix than the file.
    last = re.escape(".".join(lost.split(".")[-2:]))
    with pytest.raises(ValueError, match=rf"{name}.* lacks? \S*{last}"):
        loaders[kind](component)
