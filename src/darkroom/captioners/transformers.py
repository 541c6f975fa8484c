"""`kind: transformers`: a LLaVA-family checkpoint, run by transformers on this machine."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from darkroom.captioners.base import BatchedSection, Captioner, Generated
from darkroom.captioners.batches import in_batches
from darkroom.components.base import Component, ComponentOf
from darkroom.imports import quick_imports
from darkroom.settings.base import ADDED

if TYPE_CHECKING:
    from PIL.Image import Image

_LOG = logging.getLogger(__name__)


class Transformers(BatchedSection):
    """A LLaVA-family captioner and its decoding."""

    kind: Annotated[Literal["transformers"], ADDED] = "transformers"
    captioner: Annotated[str, ComponentOf("captioner")] = Field(
        description="name of a captioner in config/components.yaml"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights and activations; auto is bfloat16 where that is fast, else float32"
    )


class _Loaded:
    """See `captioners.batches.Batched`: every picture is read once, and both requests continue from there."""

    def __init__(self, section: Transformers, component: Component) -> None:
        with quick_imports():
            from darkroom.captioners.llava import Llava, library_version
            from darkroom.precision import described

        self._model = Llava(component, section.dtype)
        _LOG.info("recaption: %s", described(section.dtype, self._model.device))
        self._head, self._tails = self._model.requests([section.long_prompt, section.short_prompt])
        self._limit = section.max_new_tokens
        self.computed_in = self._model.dtype
        self.decoding: Mapping[str, Any] = {"dtype": self._model.dtype, "method": "greedy"}
        self.provenance: Mapping[str, str | None] = {
            "model": section.captioner,
            "model_path": component.path,
            **self._model.identity,
            "library": library_version(),
        }

    def prepare(self, pictures: "Sequence[Image]") -> dict[str, Any]:
        return self._model.prepare(pictures, self._head)

    def caption(self, prepared: dict[str, Any]) -> list[list[Generated]]:
        return self._model.generate(prepared, self._tails, self._limit)


def _load(section: Transformers, components: Mapping[str, Component]) -> _Loaded:
    return _Loaded(section, components[section.captioner])


SPEC = Captioner("transformers", Transformers, in_batches(_load))
