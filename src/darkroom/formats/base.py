"""What a format is: one spec, which `darkroom export` asks. It writes one file from a model's diffusers folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.families.base import Family
from darkroom.formats.tensors import write_tensors
from darkroom.settings.extras import Extra
from darkroom.settings.json_texts import read_json

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class ExportedModel:
    """A model's diffusers folder, of darkroom's or another's; it is read as it is asked for.

    name: the run's, or "". metadata: what a run's manifest says of it.
    """

    folder: Path
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def index(self) -> dict[str, Any]:
        """What model_index.json says.

        Raises:
            ValueError: the folder is no pipeline's.
        """
        from darkroom.formats.diffusers import read_index

        return read_index(self.folder)

    @cached_property
    def family(self) -> Family:
        """The family of its pipeline.

        Raises:
            ValueError: it is none's.
        """
        from darkroom.families.table import FAMILIES
        from darkroom.formats.diffusers import pipeline_class

        name = pipeline_class(self.folder, self.index).__name__
        for family in FAMILIES.values():
            if name in family.pipelines:
                return family
        raise ValueError(
            f"{self.folder} holds a {name}, which is of none of the families {', '.join(FAMILIES)}"
        )

    @property
    def title(self) -> str:
        """What metadata call it."""
        return f"{self.name}, {self.family.title}" if self.name else self.family.title

    def has(self, part: str) -> bool:
        """Whether the pipeline has this part."""
        return self.index.get(part, [None, None]) != [None, None]

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part."""
        kind = part.partition("_")[0]
        prefix = f"{kind}_" if kind in ("scheduler", "tokenizer") else ""
        path = self.folder / part / f"{prefix}config.json"
        if not path.is_file():
            raise ValueError(f"{path}: missing; {self.folder} is no whole pipeline")
        config = read_json(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{path}: is no configuration but a {type(config).__name__}")
        return config

    def state(self, part: str) -> "dict[str, Tensor]":
        """The tensors of a part, in float32.

        Raises:
            ValueError: its files are not whole.
        """
        from safetensors import SafetensorError

        from darkroom.formats.diffusers import load_part

        library, name = self.index[part]
        try:
            state: dict[str, Tensor] = load_part(self.folder / part, library, name).state_dict()
        except SafetensorError as error:
            raise ValueError(f"{self.folder / part} cannot be read: {error}") from error
        return state


def write_safetensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str], dtype: str
) -> None:
    """See `Format`; tensors are in their dtype already."""
    write_tensors(path, tensors, {**metadata, "format": "pt"})


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of one file.

    title: what it is and for whom. ending: of its default name, after the model's; its suffix is that of all.
    families: those that it can hold. instead: what to take for another one.

    dtypes: precisions of its weights; the first is taken where none is asked for. extra: what writing needs.

    tensors(model, dtype): what it writes, as (tensors by name, metadata, notes for who asked for it). A ValueError
        tells what the format cannot hold, and what can.
    write(path, tensors, metadata, dtype): writes these; the same always give the same bytes.
    """

    name: str
    title: str
    ending: str
    families: tuple[str, ...]
    instead: str
    dtypes: tuple[str, ...] = DTYPES
    extra: Extra | None = None
    tensors: "Callable[[ExportedModel, str], tuple[dict[str, Tensor], dict[str, str], list[str]]]"
    write: "Callable[[Path, Mapping[str, Tensor], Mapping[str, str], str], None]" = write_safetensors

    def check(self, model: ExportedModel) -> None:
        """Refuse a model that the format cannot hold.

        Raises:
            ValueError: says which it can hold, and what to take instead; or what to install.
        """
        if self.extra is not None:
            self.extra.require(f"--format {self.name}")
        family = model.family
        if family.name not in self.families:
            raise ValueError(
                f"{self.name} holds {', '.join(self.families)}, and {model.folder} is of the family {family.name}:"
                f" {self.instead}"
            )
        if family.extension and model.has(family.extension):
            raise ValueError(
                f"{self.name} has no place for {model.folder / family.extension}, which was trained with the"
                f" {family.part}: {self.instead}"
            )


def in_dtype(tensors: "Mapping[str, Tensor]", dtype: str) -> "dict[str, Tensor]":
    """Copies of tensors in another precision.

    Raises:
        ValueError: a finite number is too large for it.
    """
    import torch

    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor.to(getattr(torch, dtype), copy=True)
        if not torch.equal(found[name].isfinite(), tensor.isfinite()):
            largest = tensor.abs().max().item()
            raise ValueError(f"{name} holds {largest:.3g}, too large for {dtype}: take --dtype bfloat16")
    return found
