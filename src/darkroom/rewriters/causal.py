"""A causal language model that answers requests, many at once: transformers' own `generate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from darkroom.captioners.base import Generated
from darkroom.captioners.checkpoints import NotFiniteError, end_tokens, generated, identity, load
from darkroom.captioners.sampling import sampled, uniforms
from darkroom.components.base import Component
from darkroom.precision import resolve

TOO_LONG = "too_long"
# Templates of some models tell the day, and the same request should be the same on every day.
_NO_CLOCK = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
_ANY_LENGTH = 1 << 20


@dataclass(frozen=True)
class Prompts:
    """Requests of a batch.

    inputs: ids and mask, (B, T) each, padded on the left, of those that are short enough; None where none is.
    places: where in the batch these stand. number: of all.
    """

    inputs: dict[str, torch.Tensor] | None
    places: tuple[int, ...]
    number: int


class CausalLM:
    """A language model in memory: the same batch gives the same texts, also where they are sampled."""

    def __init__(self, component: Component, dtype: str, device: str | None = None) -> None:
        """Load the model and its tokenizer.

        Args:
            component: a folder on this machine or a Hugging Face repository, with a revision.
            dtype: "float32", "bfloat16" or "float16", of weights and activations; or "auto".
            device: a torch device; None takes the first CUDA device if there is one.

        Raises:
            ValueError: the component is no language model, or has no chat template.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = resolve(dtype, self.device)
        model, tokenizer = load(
            component, "language_model", AutoModelForCausalLM, AutoTokenizer, "tokenizer", self.dtype
        )
        if not isinstance(tokenizer.chat_template, str):
            raise ValueError(
                f"language model {component.path}: its tokenizer has no chat template; take a model that was"
                " taught to follow instructions"
            )
        self.model, self._tokenizer = model.to(self.device), tokenizer
        self._ends = end_tokens(model, tokenizer)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(self._ends[0])
        # Nothing else of the checkpoint's own: a penalty of repetition would count the padding too.
        model.generation_config = GenerationConfig(
            eos_token_id=self._ends, pad_token_id=tokenizer.pad_token_id, do_sample=False
        )
        self._template = _NO_CLOCK + tokenizer.chat_template
        self._signs = _signs(tokenizer)
        self.max_tokens = int(getattr(model.config, "max_position_embeddings", None) or _ANY_LENGTH)
        self.identity = identity(component, model)

    def prepare(self, prompts: Sequence[str], max_tokens: int) -> Prompts:
        """The model's inputs, on the CPU, of those that have at most `max_tokens`; safe on another thread."""
        rows = [self._ids(prompt) for prompt in prompts]
        places = tuple(place for place, ids in enumerate(rows) if len(ids) <= max_tokens)
        if not places:
            return Prompts(None, (), len(rows))
        inputs = self._tokenizer.pad({"input_ids": [rows[place] for place in places]}, return_tensors="pt")
        return Prompts({name: inputs[name] for name in ("input_ids", "attention_mask")}, places, len(rows))

    @torch.inference_mode()
    def generate(
        self,
        prompts: Prompts,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] = (),
    ) -> list[Generated]:
        """A text for each request, in their order; an empty one, `too_long`, for those that are.

        Args:
            prompts: as `prepare` gives them.
            max_new_tokens: longest text.
            temperature: 0 takes the most probable token.
            top_p: see `captioners.sampling.sampled`.
            seeds: one a request, for a temperature above 0.

        Raises:
            NotFiniteError: the model gave numbers that are not finite.
        """
        answers = [Generated("", None, TOO_LONG)] * prompts.number
        if prompts.inputs is None:
            return answers
        inputs = {name: value.to(self.device) for name, value in prompts.inputs.items()}
        length = inputs["input_ids"].shape[1]
        drawn = None
        if temperature > 0:
            drawn = torch.from_numpy(uniforms([seeds[place] for place in prompts.places], max_new_tokens))
        choice = _Choice(length, self._ends, prompts.places, drawn, temperature, top_p)
        ids = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, logits_processor=LogitsProcessorList([choice])
        )
        for place, row in zip(prompts.places, ids[:, length:].tolist(), strict=True):
            answers[place] = generated(self._tokenizer, row, self._ends)
        return answers

    def _ids(self, prompt: str) -> list[int]:
        message = [{"role": "user", "content": as_words(prompt, self._signs)}]
        # Templates that know of no thinking pass it over.
        text = self._tokenizer.apply_chat_template(
            message,
            chat_template=self._template,
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def as_words(text: str, signs: Sequence[str]) -> str:
    """`text` with a space in each of a model's own signs that stand in it, as of the end of a message.

    A caption with such a sign would else end its own message, and go on as somebody else's.
    """
    while found := next((sign for sign in signs if sign in text), None):
        text = text.replace(found, f"{found[0]} {found[1:]}")
    return text


def _signs(tokenizer: Any) -> list[str]:
    """What a tokenizer reads as one token wherever it stands, longest first; not runs of spaces, as some have."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    signs = {*added, *tokenizer.all_special_tokens}
    return sorted((sign for sign in signs if len(sign) > 1 and " " not in sign and sign.strip()), key=len)[
        ::-1
    ]


class _Choice(LogitsProcessor):
    """Has the greedy search of `generate` take the tokens that seeds say, and looks that scores are finite."""

    def __init__(
        self,
        length: int,
        ends: Sequence[int],
        places: Sequence[int],
        drawn: torch.Tensor | None,
        temperature: float,
        top_p: float,
    ) -> None:
        self._length, self._ends, self._places = length, list(ends), places
        self._drawn, self._temperature, self._top_p = drawn, temperature, top_p

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        made = input_ids[:, self._length :]
        done = torch.isin(made, torch.tensor(self._ends, device=made.device)).any(1)
        broken = ~torch.isfinite(scores.max(1).values) & ~done
        if broken.any():
            raise NotFiniteError(self._places[int(broken.nonzero()[0])])
        if self._drawn is None:
            return scores
        chosen = sampled(scores, self._temperature, self._top_p, self._drawn[:, made.shape[1]])
        only: Any = torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)
        return only
