"""A LLaVA-family captioner: several requests about one picture for the price of reading it once.

A request is the same for all pictures, and the picture comes before its words. So the model reads
the picture once, keeps the attention keys and values, and each request continues from there.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from darkroom.captioners.base import Generated
from darkroom.captioners.checkpoints import NotFiniteError, end_tokens, generated, identity, load
from darkroom.captioners.sampling import sampled, uniforms
from darkroom.components.base import Component
from darkroom.precision import resolve


@dataclass(frozen=True)
class Decoding:
    """How a request is answered.

    tail: the token ids that follow the picture. temperature: 0 takes the most probable token. seeds: one a
    picture, for a temperature above 0.
    """

    tail: torch.Tensor
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seeds: Sequence[int] = ()


class Llava:
    """A captioner in memory: the same batch gives the same texts, also where they are sampled."""

    def __init__(self, component: Component, dtype: str, device: str | None = None) -> None:
        """Load the model and its processor.

        Args:
            component: a folder on this machine or a Hugging Face repository, with a revision.
            dtype: "float32", "bfloat16" or "float16", of weights and activations; or "auto".
            device: a torch device; None takes the first CUDA device if there is one.

        Raises:
            ValueError: the component is no captioner, or is not a LLaVA-family checkpoint.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = resolve(dtype, self.device)
        model, self.processor = load(
            component, "captioner", AutoModelForImageTextToText, AutoProcessor, "processor", self.dtype
        )
        self.model = model.to(self.device)
        self.processor.tokenizer.padding_side = "left"
        self._image_token_id = model.config.image_token_id
        self._ends = end_tokens(self.model, self.processor.tokenizer)
        self.identity = identity(component, model)

    def requests(self, prompts: Sequence[str]) -> tuple[str, list[torch.Tensor]]:
        """(what is read up to and with the picture, the token ids that follow it for each prompt).

        Raises:
            ValueError: the chat template does not put the picture before a prompt's words.
        """
        heads, tails = set(), []
        mark = self._image_mark()
        for prompt in prompts:
            text = self._chat(prompt)
            head, found, _ = text.rpartition(mark)
            ids = self.processor.tokenizer(text)["input_ids"]
            if not found or self._image_token_id not in ids:
                raise ValueError(f"captioner: its chat template has no place for a picture, only {text!r}")
            last = len(ids) - 1 - ids[::-1].index(self._image_token_id)
            heads.add(head + mark)
            tails.append(torch.tensor(ids[last + 1 :], device=self.device))
        if len(heads) != 1 or any(len(tail) == 0 for tail in tails):
            raise ValueError("captioner: its chat template puts words of the prompt before the picture")
        return heads.pop(), tails

    def prepare(self, pictures: Sequence[Image], head: str) -> dict[str, torch.Tensor]:
        """The model's inputs up to and with the picture, on the CPU; safe on another thread."""
        inputs = self.processor(
            images=list(pictures), text=[head] * len(pictures), padding=True, return_tensors="pt"
        )
        return dict(inputs)

    @torch.inference_mode()
    def generate(
        self, inputs: dict[str, torch.Tensor], requests: Sequence[Decoding]
    ) -> list[list[Generated]]:
        """Texts for each request, each a list in the order of the pictures.

        Raises:
            ValueError: the model gave numbers that are not finite; names the place in the batch.
        """
        inputs = {name: self._to_device(value) for name, value in inputs.items()}
        mask = inputs.pop("attention_mask")
        inputs.pop("token_type_ids", None)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        read = self.model(
            **inputs, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        cache, answers = read.past_key_values, []
        for number, request in enumerate(requests):
            last = number == len(requests) - 1
            own = cache if last or _can_crop(cache) else copy.deepcopy(cache)
            answers.append(self._continue(own, mask, request))
            if own is cache and not last:
                cache.crop(mask.shape[1] - cache.get_seq_length())
        return answers

    def _continue(self, cache: Any, mask: torch.Tensor, request: Decoding) -> list[Generated]:
        batch, limit = len(mask), request.max_new_tokens
        ids = request.tail.expand(batch, -1)
        drawn = torch.from_numpy(uniforms(request.seeds, limit)) if request.temperature > 0 else None
        ends = torch.tensor(self._ends, device=self.device)
        done = torch.zeros(batch, dtype=torch.bool, device=self.device)
        steps: list[torch.Tensor] = []
        while True:
            mask = torch.cat([mask, mask.new_ones(ids.shape)], 1)
            positions = (mask.cumsum(1) - 1)[:, -ids.shape[1] :]
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            best = logits.max(1)
            broken = ~torch.isfinite(best.values) & ~done
            if broken.any():
                raise NotFiniteError(int(broken.nonzero()[0]))
            chosen = best.indices
            if drawn is not None:
                chosen = sampled(logits, request.temperature, request.top_p, drawn[:, len(steps)])
            steps.append(chosen.masked_fill(done, self._ends[0]))
            done |= torch.isin(chosen, ends)
            if len(steps) == limit or bool(done.all()):
                break
            ids = steps[-1][:, None]
        tokenizer = self.processor.tokenizer
        return [generated(tokenizer, row, self._ends) for row in torch.stack(steps, 1).tolist()]

    def _chat(self, prompt: str) -> str:
        if self.processor.chat_template is None:
            return f"USER: {self._image_mark()}\n{prompt} ASSISTANT:"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        # Some templates write the beginning-of-text token that the tokenizer adds as well.
        tokenizer = self.processor.tokenizer
        rest = text.removeprefix(tokenizer.bos_token or "")
        return rest if tokenizer(rest)["input_ids"][0] == tokenizer.bos_token_id else text

    def _image_mark(self) -> str:
        mark: str = self.processor.tokenizer.convert_ids_to_tokens(self._image_token_id)
        return mark

    def _to_device(self, value: torch.Tensor) -> torch.Tensor:
        if value.is_floating_point():
            return value.to(self.device, self.model.dtype)
        return value.to(self.device)


def _can_crop(cache: Any) -> bool:
    return not any(getattr(cache, "is_sliding", [True]))
