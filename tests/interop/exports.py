"""Tiny models with random weights in every form that darkroom exports, and what darkroom draws with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from format_models import pipeline_of, with_adapters
from test_sample_pipeline import build

from darkroom.export import export_file
from darkroom.families.table import family_of
from darkroom.formats.diffusers import load_pipeline

PROMPT, SEED = "red circle", 7
ENDINGS = {"single_file": ".safetensors", "lora_kohya": "-lora.safetensors", "gguf": ".gguf"}
METHODS = {
    "lora": {},
    "patterns": {"rank_pattern": {"to_q": 3}, "alpha_pattern": {"to_v": 1.0}},
    "dora": {"method": "dora"},
    "lokr": {"method": "lokr", "rank": 1},
}
CLASSES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "mmdit": "DiffusionPipeline",
}
CALL = {"width": 64, "height": 32, "num_inference_steps": 3, "guidance_scale": 3.0}
CALLS = {"sd3": {"max_sequence_length": 24}, "flux": {"max_sequence_length": 24}}


@dataclass(frozen=True)
class Exported:
    """A model's folders, as it was before adapters (base) and with them (tuned), and the files of the second."""

    kind: str
    part: str
    base: Path
    tuned: Path
    files: dict[str, Path]

    @property
    def call(self) -> dict[str, Any]:
        return CALL | CALLS.get(self.kind, {})


def exported(kind: str, method: str, folder: Path) -> Exported:
    """A tiny model of a kind with trained-looking adapters of a method, in every form that can hold it."""
    folder.mkdir(parents=True)
    pipeline = build(folder / "parts") if kind == "mmdit" else pipeline_of(kind, folder)
    part = family_of(pipeline).part
    with_adapters(pipeline, folder, **METHODS[method])
    files = {}
    for form, ending in ENDINGS.items():
        try:
            files[form] = export_file(str(folder / "tuned"), form, folder / f"{form}{ending}", "float32")[0]
        except ValueError as error:  # what a form cannot hold
            assert method == "lokr" or kind == "mmdit", error
    return Exported(kind, part, folder / "base", folder / "tuned", files)


def drawn(folder: Path, call: dict[str, Any], **parts: Any) -> np.ndarray:
    """(height, width, 3) in 0 to 1: what darkroom draws with a folder, with some parts in place of its own."""
    pipeline = load_pipeline(folder)
    pipeline.register_modules(**parts)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    return pipeline(PROMPT, generator=generator, output_type="np", **call).images[0]
