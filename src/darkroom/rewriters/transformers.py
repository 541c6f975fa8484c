"""`kind: transformers`: a causal language model with a chat template, run by transformers on this machine."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from darkroom.captioners.base import BatchedSection, Generated, Texts
from darkroom.captioners.batches import Asked, in_batches
from darkroom.components.base import Component, ComponentOf
from darkroom.imports import quick_imports
from darkroom.rewriters.base import Rewriter, RewriterSection

if TYPE_CHECKING:
    from darkroom.rewriters.causal import Prompts

_LOG = logging.getLogger(__name__)


class TransformersRewriter(RewriterSection, BatchedSection):
    """A causal language model and its decoding."""

    can_sample: ClassVar[bool] = True

    kind: Literal["transformers"]
    language_model: Annotated[str, ComponentOf("language_model")] = Field(
        description="name of a language model in config/components.yaml"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights and activations; auto is bfloat16 where that is fast, else float32"
    )
    max_prompt_tokens: int = Field(
        1024, ge=1, description="longest request, tokens; one that is longer is not asked, and counted"
    )


class _Loaded:
    """See `captioners.batches.Batched`: the requests for a caption of all pictures of a batch are read at once."""

    def __init__(self, section: TransformersRewriter, component: Component) -> None:
        with quick_imports():
            from darkroom.captioners.checkpoints import library_version
            from darkroom.precision import described
            from darkroom.rewriters.causal import CausalLM

        self._requests, self._max_tokens = section.asked(), section.max_prompt_tokens
        self._model = CausalLM(component, section.dtype)
        _LOG.info("rewrite: %s", described(section.dtype, self._model.device))
        self.computed_in = self._model.dtype
        self.decoding: Mapping[str, Any] = {
            "dtype": self._model.dtype,
            "max_prompt_tokens": section.max_prompt_tokens,
        }
        self.provenance: Mapping[str, str | None] = {
            "model": section.language_model,
            "model_path": component.path,
            **self._model.identity,
            "library": library_version(),
        }

    def prepare(self, shown: Mapping[str, Sequence[str]]) -> "dict[str, Prompts]":
        limits = {
            name: min(self._max_tokens, self._model.max_tokens - self._requests[name].max_new_tokens)
            for name in shown
        }
        return {name: self._model.prepare(prompts, limits[name]) for name, prompts in shown.items()}

    def caption(self, prepared: "Mapping[str, Prompts]", asked: Asked) -> list[list[Generated]]:
        return [self._rewritten(prepared[name], name, asked) for name in asked.names]

    def _rewritten(self, prompts: "Prompts", name: str, asked: Asked) -> list[Generated]:
        request = self._requests[name]
        seeds = tuple(request.seed(uid, asked.attempt) for uid in asked.uids)
        options = (request.max_new_tokens, request.temperature_at(asked.attempt) or 0.0, request.top_p)
        return self._model.generate(prompts, *options, seeds)


def _read_prompts(texts: Texts, places: Sequence[int], names: Sequence[str]) -> dict[str, list[str]]:
    """Name of a caption -> the requests for it, of a batch."""
    return {name: [texts.prompt(place, name) for place in places] for name in names}


def _load(section: TransformersRewriter, components: Mapping[str, Component]) -> _Loaded:
    return _Loaded(section, components[section.language_model])


SPEC = Rewriter("transformers", TransformersRewriter, in_batches(_load, _read_prompts))
