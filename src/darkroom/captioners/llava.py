"""A LLaVA-family captioner: several requests about one picture for the price of reading it once.

A request is the same for all pictures, and the picture comes before its words. So the model reads
the picture once, keeps the attention keys and values, and each request continues from there.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from PIL.Image import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from darkroom.captioners.base import Generated
from darkroom.captioners.batches import PictureError
from darkroom.captioners.sampling import sampled, uniforms
from darkroom.components.base import Component
from darkroom.precision import resolve
from darkroom.settings.paths import local_path
from darkroom.store import sha256_folder


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
        if component.kind != "captioner":
            raise ValueError(f"component {component.path}: kind is {component.kind!r}, not 'captioner'")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = resolve(dtype, self.device)
        where: dict[str, Any] = {"revision": component.revision, "subfolder": component.subfolder or ""}
        source, folder = component.path, local_path(component.path)
        if folder.is_dir():
            source = str(folder)
            where = {"subfolder": component.subfolder or "", "local_files_only": True}
        transformers_logging.disable_progress_bar()
        try:
            self.processor = AutoProcessor.from_pretrained(source, trust_remote_code=False, **where)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                source,
                dtype=getattr(torch, self.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                **where,
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"captioner {component.path}: not a transformers checkpoint with a processor ({error})"
            ) from error
        self.model = model.to(self.device).eval()
        self.processor.tokenizer.padding_side = "left"
        self._image_token_id = model.config.image_token_id
        self._ends = self._end_tokens()
        self.identity = _identity(component, model)

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
        return [self._text(row) for row in torch.stack(steps, 1).tolist()]

    def _text(self, ids: list[int]) -> Generated:
        stop = next((i for i, token in enumerate(ids) if token in self._ends), None)
        kept = ids[:stop]
        text = self.processor.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Generated(text, len(kept), "length" if stop is None else "stop")

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

    def _end_tokens(self) -> list[int]:
        ends: list[int] = []
        for source in (self.model.generation_config.eos_token_id, self.processor.tokenizer.eos_token_id):
            ends += source if isinstance(source, list) else [] if source is None else [source]
        if not ends:
            raise ValueError("captioner: neither its generation config nor its tokenizer names an end token")
        return list(dict.fromkeys(ends))

    def _to_device(self, value: torch.Tensor) -> torch.Tensor:
        if value.is_floating_point():
            return value.to(self.device, self.model.dtype)
        return value.to(self.device)


class NotFiniteError(PictureError):
    """The model's scores for one picture of a batch are not finite; `place` is where it is."""

    def __init__(self, place: int) -> None:
        super().__init__(place, f"the captioner's scores for picture {place} of the batch are not finite")


def library_version() -> str:
    """What generated the captions, for their provenance."""
    return f"transformers {transformers.__version__}, torch {torch.__version__}"


def _can_crop(cache: Any) -> bool:
    return not any(getattr(cache, "is_sliding", [True]))


def _identity(component: Component, model: Any) -> dict[str, str | None]:
    """What the weights are: a hash of a local folder, or the commit of a repository."""
    path = local_path(component.path)
    if path.is_dir():
        return {"model_sha256": sha256_folder(path / (component.subfolder or "")), "model_revision": None}
    commit = component.revision or getattr(model.config, "_commit_hash", None)
    if commit is None:
        raise ValueError(f"captioner {component.path}: give its revision, a commit of the repository")
    return {"model_sha256": None, "model_revision": commit}
