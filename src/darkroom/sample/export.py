"""Writes a trained model as a diffusers folder that needs no darkroom, and loads it again.

A script that imports diffusers alone draws with it:

    from diffusers import DiffusionPipeline
    pipeline = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
    pipeline("a red circle", width=64, height=64).images[0].save("circle.png")

What is not diffusers' own the folder carries: `pipeline.py` beside `model_index.json`, and `mmdit.py` or
`context.py` beside the weights, which is where diffusers 0.42 looks for them. The other families load with
StableDiffusionPipeline, StableDiffusionXLPipeline and StableDiffusion3Pipeline, without trust_remote_code.
"""

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from darkroom.config.run import TextEncoderUse
from darkroom.models import context, mmdit
from darkroom.models.mmdit import MMDiT
from darkroom.models.text import TextEncoder
from darkroom.sample import pipeline as pipeline_module
from darkroom.sample import sd3_context
from darkroom.sample.pipeline import DarkroomPipeline
from darkroom.store import replacing

# What loading leaves behind in a config: where it was loaded from says nothing about the model.
UNSTABLE_KEYS = ("_name_or_path", "name_or_path", "local_files_only", "is_local", "_commit_hash")
# Our own classes: as model_index.json names them, and the file that a folder carries.
OWN_PARTS: dict[tuple[str, str], Any] = {
    ("mmdit", "MMDiT"): mmdit,
    ("context", "ContextExtension"): context,
}
OWN_PIPELINES: dict[str, Any] = {
    "DarkroomPipeline": pipeline_module,
    "SD3ContextPipeline": sd3_context,
}


def make_pipeline(
    transformer: MMDiT,
    vae: AutoencoderKL,
    text_encoders: Sequence[TextEncoder],
    uses: Sequence[TextEncoderUse] | None = None,
    max_text_tokens: int = 77,
    scheduler: Any = None,
) -> DarkroomPipeline:
    """A pipeline of components in memory.

    Args:
        uses: how each of several text encoders is read; None is one CLIP, read as SD3 does.
        scheduler: see `schedulers.make_scheduler`; None is plain flow.
    """
    first, *others = text_encoders
    named: dict[str, Any] = {}
    for i, encoder in enumerate(others, start=2):
        named |= {f"text_encoder_{i}": encoder.model, f"tokenizer_{i}": encoder.tokenizer}
    readings: list[list[Any]] = [
        [use.hidden_layer, use.max_tokens, use.padded, use.pooled, use.no_caption == "zeros"]
        for use in uses or ()
    ]
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    return DarkroomPipeline(
        *(transformer, vae, first.model, first.tokenizer, scheduler, max_text_tokens),
        **named,
        readings=readings or None,
    )


def export_pipeline(pipeline: Any, folder: str | Path, add: Callable[[Path], None] = lambda _: None) -> Path:
    """Write a pipeline as a self-contained diffusers folder: the same pipeline always gives the same bytes.

    The folder is written beside and then renamed; one that is there already is replaced. `add` may write more
    into it.
    """
    folder = Path(folder)
    with replacing(folder) as new:
        new = Path(new)
        new.mkdir(parents=True, exist_ok=True)
        index = _index(pipeline)
        for name, part in pipeline.components.items():
            if part is not None and hasattr(part, "save_pretrained"):
                save_part(part, new / name)
        own = OWN_PIPELINES.get(type(pipeline).__name__)
        if own is not None:
            shutil.copyfile(own.__file__, new / "pipeline.py")
        (new / "model_index.json").write_text(json.dumps(index))
        add(new)
        for path in sorted(new.rglob("*.json")):
            _normalise_json(path)
    return folder


def _index(pipeline: Any) -> dict[str, Any]:
    """What model_index.json says: the classes of the pipeline and of its parts, and the pipeline's options."""
    name = type(pipeline).__name__
    is_own = name in OWN_PIPELINES
    index: dict[str, Any] = {
        "_class_name": ["pipeline", name] if is_own else name,
        "_diffusers_version": diffusers.__version__,
    }
    for key, value in pipeline.config.items():
        part = pipeline.components.get(key)
        if part is not None:
            index[key] = _class_of(part)
        elif key in pipeline.components and not is_own:
            index[key] = [None, None]
        elif key not in pipeline.components and not key.startswith("_") and value is not None:
            index[key] = value
    return index


def _class_of(part: Any) -> list[str]:
    """[library or file, class], as model_index.json names a part."""
    name = type(part).__name__
    own = [key for key, module in OWN_PARTS.items() if type(part).__module__ == module.__name__]
    return [own[0][0] if own else type(part).__module__.split(".")[0], name]


def save_part(part: Any, folder: str | Path) -> Path:
    """Write one part of a pipeline; one of our own with the code that defines it."""
    folder = Path(folder)
    part.save_pretrained(folder)
    for module in OWN_PARTS.values():
        if type(part).__module__ == module.__name__:
            shutil.copyfile(module.__file__, folder / Path(module.__file__).name)
    for path in folder.glob("config.json"):
        _normalise_json(path)
    return folder


def load_pipeline(folder: str | Path, transformer: str | Path | None = None) -> Any:
    """An exported pipeline with installed classes, so that no code of the folder runs.

    Args:
        transformer: a network's folder in place of the exported network, e.g. the untrained weights; or a
            folder that has some of the pipeline's parts, by their names.
    Raises:
        ValueError: when the folder is no exported pipeline.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is no exported pipeline: it has no model_index.json")
    index = json.loads((folder / "model_index.json").read_text())
    cls = _pipeline_class(folder, index["_class_name"])
    accepted = inspect.signature(cls.__init__).parameters
    arguments: dict[str, Any] = {}
    for key, value in index.items():
        is_part = isinstance(value, list) and len(value) == 2 and (folder / key).is_dir()
        if is_part:
            arguments[key] = _load_part(_place(folder, key, transformer), *value)
        elif key in accepted:
            arguments[key] = None if value == [None, None] else value
    return cls(**arguments)


def _pipeline_class(folder: Path, found: Any) -> Any:
    library, name = found if isinstance(found, list) else ("diffusers", found)
    if library == "pipeline" and name in OWN_PIPELINES:
        return getattr(OWN_PIPELINES[name], name)
    if library == "diffusers" and hasattr(diffusers, name):
        return getattr(diffusers, name)
    raise ValueError(f"{folder} holds a {found}: neither darkroom's nor diffusers'")


def _place(folder: Path, key: str, transformer: str | Path | None) -> Path:
    """The folder of a part: the exported one, or that which stands in for it."""
    if transformer is not None:
        other = Path(transformer)
        if (other / key).is_dir():
            return other / key
        if key in ("transformer", "unet") and (other / "config.json").is_file():
            return other
    return folder / key


def _load_part(folder: Path, library: str, name: str) -> Any:
    own = OWN_PARTS.get((library, name))
    if own is None and library not in ("diffusers", "transformers"):
        raise ValueError(f"{folder} is a {library}.{name}: neither darkroom's nor a class of diffusers")
    part = getattr(own or import_module(library), name).from_pretrained(str(folder))
    return part.eval() if hasattr(part, "eval") else part


def _normalise_json(path: Path) -> None:
    """Sort a JSON file's keys and drop those that tell where a component was loaded from."""
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict) and path.name != "vocab.json":
        value = {key: item for key, item in value.items() if key not in UNSTABLE_KEYS}
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
