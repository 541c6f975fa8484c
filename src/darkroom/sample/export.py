"""Writes a trained model as a diffusers folder that needs no darkroom, and loads it again.

A script that imports diffusers alone draws with it:

    from diffusers import DiffusionPipeline
    pipeline = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
    pipeline("a red circle", width=64, height=64).images[0].save("circle.png")

The folder carries its code: `pipeline.py` beside `model_index.json` and `mmdit.py` beside the transformer's
weights, which is where diffusers 0.42 looks for classes that are not its own.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from darkroom.models import mmdit
from darkroom.models.mmdit import MMDiT
from darkroom.sample import pipeline as pipeline_module
from darkroom.sample.pipeline import DarkroomPipeline
from darkroom.store import replacing

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

# What loading leaves behind in a config: where it was loaded from says nothing about the model.
UNSTABLE_KEYS = ("_name_or_path", "name_or_path", "local_files_only", "is_local", "_commit_hash")
SCHEDULERS: dict[str, Any] = {c.__name__: c for c in (DDIMScheduler, FlowMatchEulerDiscreteScheduler)}
INDEX = {
    "_class_name": ["pipeline", "DarkroomPipeline"],
    "_diffusers_version": diffusers.__version__,
    "scheduler": ["diffusers", ""],  # its class is the pipeline's
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "transformer": ["mmdit", "MMDiT"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def make_pipeline(
    transformer: MMDiT,
    vae: AutoencoderKL,
    text_encoder: "CLIPTextModelWithProjection",
    tokenizer: "CLIPTokenizer",
    max_text_tokens: int = 77,
    scheduler: Any = None,
) -> DarkroomPipeline:
    """A pipeline of components in memory. scheduler: see `schedulers.make_scheduler`; None is plain flow."""
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    return DarkroomPipeline(transformer, vae, text_encoder, tokenizer, scheduler, max_text_tokens)


def export_pipeline(pipeline: DarkroomPipeline, folder: str | Path) -> Path:
    """Write a pipeline as a self-contained diffusers folder: the same pipeline always gives the same bytes.

    The folder is written beside and then renamed; one that is there already is replaced.
    """
    folder = Path(folder)
    with replacing(folder) as new:
        new = Path(new)
        new.mkdir(parents=True, exist_ok=True)
        save_transformer(pipeline.transformer, new / "transformer")
        pipeline.vae.save_pretrained(new / "vae")
        pipeline.text_encoder.save_pretrained(new / "text_encoder")
        pipeline.tokenizer.save_pretrained(new / "tokenizer")
        pipeline.scheduler.save_pretrained(new / "scheduler")
        shutil.copyfile(pipeline_module.__file__, new / "pipeline.py")
        scheduler = ["diffusers", type(pipeline.scheduler).__name__]
        index = {**INDEX, "scheduler": scheduler, "max_text_tokens": pipeline.config["max_text_tokens"]}
        (new / "model_index.json").write_text(json.dumps(index))
        for path in sorted(new.rglob("*.json")):
            _normalise_json(path)
    return folder


def save_transformer(transformer: MMDiT, folder: str | Path) -> Path:
    """Write a transformer's weights and config with the code that defines it."""
    folder = Path(folder)
    transformer.save_pretrained(folder)
    shutil.copyfile(mmdit.__file__, folder / "mmdit.py")
    _normalise_json(folder / "config.json")
    return folder


def load_pipeline(folder: str | Path, transformer: str | Path | None = None) -> DarkroomPipeline:
    """An exported pipeline with this package's own classes, so that no code of the folder runs.

    Args:
        transformer: another transformer folder in place of the exported one, e.g. the untrained weights.
    Raises:
        ValueError: when the folder is no exported pipeline.
    """
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is no exported pipeline: it has no model_index.json")
    index = json.loads((folder / "model_index.json").read_text())
    if index["_class_name"] != INDEX["_class_name"]:
        raise ValueError(f"{folder} holds a {index['_class_name']}, no {INDEX['_class_name']}")
    return DarkroomPipeline(
        MMDiT.from_pretrained(str(transformer or folder / "transformer")).eval(),
        AutoencoderKL.from_pretrained(str(folder / "vae")).eval(),
        CLIPTextModelWithProjection.from_pretrained(str(folder / "text_encoder")).eval(),
        CLIPTokenizer.from_pretrained(str(folder / "tokenizer")),
        SCHEDULERS[index["scheduler"][1]].from_pretrained(str(folder / "scheduler")),
        index["max_text_tokens"],
    )


def _normalise_json(path: Path) -> None:
    """Sort a JSON file's keys and drop those that tell where a component was loaded from."""
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict) and path.name != "vocab.json":
        value = {key: item for key, item in value.items() if key not in UNSTABLE_KEYS}
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
