"""Pretrained components by name: VAEs, text encoders, CLIPs, captioners, language models and models to go on from.

A field that names one says of which kind: `vae: Annotated[str, ComponentOf("vae")]`. One walk over the
configuration finds them all, for the checks, a stage's settings, and whatever else depends on components.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, Field, RootModel, model_validator

from darkroom.components.onnx import OnnxClassifier
from darkroom.components.onnx_detector import OnnxDetector
from darkroom.settings.base import ADDED, Section

Kind = Literal[
    "vae",
    "text_encoder",
    "clip",
    "captioner",
    "language_model",
    "aesthetic_head",
    "image_classifier",
    "face_detector",
    "object_detector",
    "inception",
    "dinov2",
    "image_reward",
    "lpips",
    "model",
]
# open_clip's names of how pictures come to a CLIP's square: the shorter side resized and the centre cut out, or
# the longer side resized and the rest filled.
CROP, PAD = "shortest", "longest"
# Of pictures for an inception, by the library whose it is; what each does `components.inception` tells.
Resize = Literal["tf1", "clean", "torchmetrics"]


class Component(Section):
    """A pretrained component: a folder on this machine, or a Hugging Face repository."""

    kind: Kind
    path: str = Field(
        description="folder relative to the project's root or to a variable of the environment ($NAME/...),"
        " or a repository's name"
    )
    revision: str | None = Field(None, description="commit of the repository")
    subfolder: str | None = Field(None, description="folder inside the repository")
    onnx: Annotated[OnnxClassifier | None, ADDED] = Field(
        None, description="for an image_classifier that is an ONNX file; null: one as transformers saves it"
    )
    onnx_detector: Annotated[OnnxDetector | None, ADDED] = Field(
        None, description="for an object_detector that is an ONNX file; null: one as transformers saves it"
    )

    @model_validator(mode="after")
    def _onnx_is_of_the_kind(self) -> "Component":
        if self.onnx is not None and self.kind != "image_classifier":
            raise ValueError(f"onnx is for an image_classifier; this is a {self.kind}")
        if self.onnx_detector is not None and self.kind != "object_detector":
            raise ValueError(f"onnx_detector is for an object_detector; this is a {self.kind}")
        return self


class Components(RootModel[dict[str, Component]]):
    """`config/components.yaml`: name -> component."""


@dataclass(frozen=True)
class ComponentOf:
    """Marks a field that holds the name of a component of this kind, or one of `others`, which are none."""

    kind: Kind
    others: tuple[str, ...] = ()


class Named(NamedTuple):
    """A component that the configuration names: under which key (of a list: the list's), of which kind, and what
    else might stand there."""

    key: str
    name: str
    kind: Kind
    others: tuple[str, ...] = ()


def named_components(section: Any, key: str = "") -> Iterator[Named]:
    """The components that a section and those inside it name, in the order of the fields."""
    for item in section if isinstance(section, tuple) else ():
        yield from (named._replace(key=key) for named in named_components(item))
    for name, field in type(section).model_fields.items() if isinstance(section, BaseModel) else ():
        value, place = getattr(section, name), f"{key}.{name}".lstrip(".")
        of = next((mark for mark in marks(field) if isinstance(mark, ComponentOf)), None)
        if of is not None and value is not None:
            if value not in of.others:
                yield Named(place, value, of.kind, of.others)
        elif isinstance(value, BaseModel | tuple):
            yield from named_components(value, place)


def marks(field: Any) -> list[Any]:
    """The marks of a field, and of the types it may have: `Annotated[str, mark] | None` too."""
    nested = [mark for choice in get_args(field.annotation) for mark in getattr(choice, "__metadata__", ())]
    return [*field.metadata, *nested]
