"""`kind: transformers`: a LLaVA-family checkpoint, run by transformers on this machine."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from darkroom.captioners.base import BatchedSection, Captioner, Generated
from darkroom.captioners.batches import Asked, in_batches
from darkroom.components.base import Component, ComponentOf
from darkroom.imports import quick_imports
from darkroom.settings.base import ADDED

if TYPE_CHECKING:
    from PIL.Image import Image

    from darkroom.captioners.llava import Decoding

_LOG = logging.getLogger(__name__)


class Transformers(BatchedSection):
    """A LLaVA-family captioner and its decoding."""

    can_sample: ClassVar[bool] = True

    kind: Annotated[Literal["transformers"], ADDED] = "transformers"
    captioner: Annotated[str, ComponentOf("captioner")] = Field(
        description="name of a captioner in config/components.yaml"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights and activations; auto is bfloat16 where that is fast, else float32"
    )


class _Loaded:
    """See `captioners.batches.Batched`: every picture is read once, and all requests continue from there."""

    def __init__(self, section: Transformers, component: Component) -> None:
        with quick_imports():
            from darkroom.captioners.checkpoints import library_version
            from darkroom.captioners.llava import Llava
            from darkroom.precision import described

        self._requests = section.asked()
        self._model = Llava(component, section.dtype)
        _LOG.info("recaption: %s", described(section.dtype, self._model.device))
        prompts = [request.prompt for request in self._requests.values()]
        self._head, tails = self._model.requests(prompts)
        self._tails = dict(zip(self._requests, tails, strict=True))
        self.computed_in = self._model.dtype
        self.decoding: Mapping[str, Any] = {"dtype": self._model.dtype}
        self.provenance: Mapping[str, str | None] = {
            "model": section.captioner,
            "model_path": component.path,
            **self._model.identity,
            "library": library_version(),
        }

    def prepare(self, pictures: "Sequence[Image]") -> dict[str, Any]:
        return self._model.prepare(pictures, self._head)

    def caption(self, prepared: dict[str, Any], asked: Asked) -> list[list[Generated]]:
        return self._model.generate(prepared, [self._decoding(name, asked) for name in asked.names])

    def _decoding(self, name: str, asked: Asked) -> "Decoding":
        from darkroom.captioners.llava import Decoding

        request = self._requests[name]
        seeds = tuple(request.seed(uid, asked.attempt) for uid in asked.uids)
        options = (request.max_new_tokens, request.temperature_at(asked.attempt) or 0.0, request.top_p)
        return Decoding(self._tails[name], *options, seeds)


def _load(section: Transformers, components: Mapping[str, Component]) -> _Loaded:
    return _Loaded(section, components[section.captioner])


SPEC = Captioner("transformers", Transformers, in_batches(_load))
