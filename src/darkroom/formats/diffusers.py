"""Writes a trained model as a diffusers folder that needs no darkroom, and loads it again.

A script that imports diffusers alone draws with it:

    from diffusers import DiffusionPipeline
    pipeline = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
    pipeline("a red circle", width=64, height=64).images[0].save("circle.png")

What is not diffusers' own the folder carries: `pipeline.py` beside `model_index.json`, and `mmdit.py` or
`context.py` beside the weights, which is where diffusers 0.42 looks for them. Diffusers' own families load
with their own pipeline there, without trust_remote_code.
"""

import inspect
import json
import logging
import re
import shutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
from torch import nn

from darkroom.families.table import FAMILIES
from darkroom.formats.both_transformers import class_name, save_for_both
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import merged
from darkroom.settings.json_texts import read_json
from darkroom.store import replacing

_LOG = logging.getLogger(__name__)

# The names of weights, whole or in shards, of diffusers and of transformers.
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(\.(?P<variant>\w+))?(-\d+-of-\d+)?\.safetensors")
# What loading leaves behind in a config: where it was loaded from says nothing about the model.
UNSTABLE_KEYS = ("_name_or_path", "name_or_path", "local_files_only", "is_local", "_commit_hash")


@cache
def carried() -> dict[str, ModuleType]:
    """The modules that exported folders carry along, by their names: those of all families."""
    return {name: import_module(name) for family in FAMILIES.values() for name in family.carried}


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
        if _is_own(pipeline):
            shutil.copyfile(_file(pipeline), new / "pipeline.py")
        (new / "model_index.json").write_text(json.dumps(index))
        add(new)
        for path in sorted(new.rglob("*.json")):
            _normalise_json(path)
    return folder


def _index(pipeline: Any) -> dict[str, Any]:
    """What model_index.json says: the classes of the pipeline and of its parts, and the pipeline's options."""
    name = type(pipeline).__name__
    is_own = _is_own(pipeline)
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


def _is_own(part: Any) -> bool:
    return type(part).__module__ in carried()


def _file(part: Any) -> Path:
    """The file that defines the class of a part of our own."""
    return Path(str(carried()[type(part).__module__].__file__))


def _class_of(part: Any) -> list[str]:
    """[library or file, class], as model_index.json names a part."""
    library, *_, last = type(part).__module__.split(".")
    return [last if _is_own(part) else library, class_name(part)]


def save_part(part: Any, folder: str | Path) -> Path:
    """Write one part of a pipeline; one of our own with the code that defines it."""
    folder = Path(folder)
    save_for_both(part, folder)
    if _is_own(part):
        shutil.copyfile(_file(part), folder / _file(part).name)
    for path in folder.glob("config.json"):
        _normalise_json(path)
    return folder


def save_network(denoiser: Denoiser, folder: Path) -> None:
    """Write a network (and its extension) alone, in the folders that they have in a pipeline's."""
    save_part(merged(denoiser.network), folder / denoiser.family.part)
    if denoiser.extension is not None:
        save_part(denoiser.extension, folder / denoiser.family.extension)


def load_pipeline(folder: str | Path, transformer: str | Path | None = None) -> Any:
    """A pipeline's folder, of darkroom's or of diffusers, in float32.

    The classes are installed ones, so that no code of the folder runs; weights are safetensors alone. A safety
    checker is left out.

    Args:
        transformer: a network's folder in place of the exported network, e.g. the untrained weights; or a
            folder that has some of the pipeline's parts, by their names.
    Raises:
        ValueError: when the folder is no exported pipeline.
    """
    folder = Path(folder)
    index = read_index(folder)
    if index.get("safety_checker", [None, None]) != [None, None]:
        _LOG.warning("%s: loaded without its safety checker, which makes pictures black", folder)
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    cls = pipeline_class(folder, index)
    accepted = inspect.signature(cls.__init__).parameters
    arguments: dict[str, Any] = {}
    for key, value in index.items():
        is_part = isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
        # A name with a slash in it would lead elsewhere.
        if is_part and key.isidentifier() and (folder / key).is_dir():
            arguments[key] = load_part(_place(folder, key, transformer), *value)
        elif key in accepted:
            arguments[key] = None if value == [None, None] else value
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ValueError(f"{folder} has not the parts of a {cls.__name__}: {error}") from error


def read_index(folder: Path) -> dict[str, Any]:
    """What the model_index.json of a pipeline's folder says.

    Raises:
        ValueError: the folder has none, or it names no pipeline.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no exported pipeline: it has no model_index.json")
    try:
        index = read_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from None
    if not isinstance(index, dict) or "_class_name" not in index:
        raise ValueError(f"{path}: names no pipeline (_class_name)")
    return index


def pipeline_class(folder: Path, index: dict[str, Any]) -> Any:
    """The installed class of the pipeline in a folder with this index; a ValueError tells that none is known."""
    found = index["_class_name"]
    library, name = found if isinstance(found, list) and len(found) == 2 else ("diffusers", found)
    own = _own_class(name) if library == "pipeline" else None
    if own is not None:
        return own
    cls = getattr(diffusers, name, None) if library == "diffusers" and isinstance(name, str) else None
    if isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline):
        return cls
    raise ValueError(f"{folder} holds a {found}: neither darkroom's nor diffusers'")


def _own_class(name: str, file: str | None = None) -> Any:
    """The class of that name that a carried module defines, in the file of that name if one is given; or None."""
    for module in carried().values():
        found = getattr(module, name, None)
        is_defined = getattr(found, "__module__", None) == module.__name__
        if is_defined and file in (None, module.__name__.rpartition(".")[2]):
            return found
    return None


def _place(folder: Path, key: str, transformer: str | Path | None) -> Path:
    """The folder of a part: the exported one, or that which stands in for it."""
    if transformer is not None:
        other = Path(transformer)
        if (other / key).is_dir():
            return other / key
        if key in {family.part for family in FAMILIES.values()} and (other / "config.json").is_file():
            return other
    return folder / key


def load_part(folder: Path, library: str, name: str) -> Any:
    """One part of a pipeline, of an installed class that model_index.json names; networks in float32."""
    own = _own_class(name, library)
    if own is None and library not in ("diffusers", "transformers"):
        raise ValueError(f"{folder} is a {library}.{name}: neither darkroom's nor a class of diffusers")
    cls: Any = own or getattr(import_module(library), name, None)
    is_loaded_from_folders = isinstance(cls, type) and hasattr(cls, "from_pretrained")
    if not is_loaded_from_folders:
        raise ValueError(f"{folder} is a {library}.{name}: no class that is loaded from a folder")
    # What chooses its class by the folder would ask whether to run the folder's code.
    code: dict[str, Any] = {"trust_remote_code": False} if name.startswith("Auto") and own is None else {}
    if not issubclass(cls, nn.Module):
        return cls.from_pretrained(str(folder), **code)
    # transformers would keep the precision of the files.
    part, loading = cls.from_pretrained(
        str(folder), use_safetensors=True, variant=_variant(folder), output_loading_info=True
    )
    if loading["missing_keys"]:  # both libraries would go on with random numbers in their place
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}")
    return part.float().eval()


def _variant(folder: Path) -> str | None:
    """Of weights that lie there as one variant alone, such as fp16, its name; None where they lie there plainly.

    Raises:
        ValueError: there are several, or no weights in safetensors.
    """
    found = [match for path in folder.iterdir() if (match := _WEIGHTS.fullmatch(path.name))]
    variants = sorted({match["variant"] for match in found if match["variant"]})
    if any(not match["variant"] for match in found):
        return None
    if len(variants) == 1:
        return variants[0]
    if not variants:
        raise ValueError(f"{folder} has no weights in safetensors; pickles are not read")
    raise ValueError(
        f"{folder} has its weights as {' and '.join(variants)} alone; leave one of these there, or the plain ones"
    )


def _normalise_json(path: Path) -> None:
    """Sort a JSON file's keys and drop those that tell where a component was loaded from."""
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict) and path.name != "vocab.json":
        value = {key: item for key, item in value.items() if key not in UNSTABLE_KEYS}
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
