"""The demo's captioner: a real LLaVA (CLIP tower, projector, Llama) of a few million weights.

It is trained on the wider demo world, held-out combinations included, as a public captioner is. The
folder that `train_captioner` writes is an ordinary transformers checkpoint: the recaption stage loads it
with the code that loads the llava-hf models.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from darkroom_demo.pretrain.captioner_data import Pool, all_words, draw_pool, mirrored_captions, patch_facts
from darkroom_demo.scenes import COLORS, SHAPES

IMAGE_PX = 96
PATCH_PX = 12
LONG_PROMPTS = (
    "Describe this picture in full.",
    "Describe the image in detail.",
    "What is in this picture? Say everything.",
    "Write a long caption.",
)
SHORT_PROMPTS = (
    "Describe this picture in one short phrase.",
    "Describe the image briefly.",
    "What is in this picture? Say it in a few words.",
    "Write a short caption.",
)

_log = logging.getLogger(__name__)
_GRID = IMAGE_PX // PATCH_PX
_NUM_IMAGE_TOKENS = _GRID**2
_WIDTH = 192
# (optimizer steps, highest learning rate) of each round; a round has pictures of its own.
ROUNDS = ((2800, 1.2e-3), (1400, 8e-4))
# Classes of `patch_facts`: ground or a colour, ground or a shape, a thing's centre or not, row, column.
_FACT_CLASSES = (1 + len(COLORS), 1 + len(SHAPES), 2, _GRID, _GRID)
_SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
_IMAGE_TOKEN = "<image>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def train_captioner(
    out_folder: str | Path,
    seed: int = 0,
    rounds: Sequence[tuple[int, float]] = ROUNDS,
    threads: int = 1,
    num_pictures: int = 40_000,
    batch_size: int = 48,
) -> dict[str, float]:
    """Train the demo's captioner from nothing and write it as a transformers folder (float16).

    The same arguments give the same bytes on the same kind of machine; the committed weights are the defaults'.
    A step takes 0.3 to 0.6 s on two threads of a CPU with bfloat16 matrix units.

    Args:
        out_folder: gets config.json, model.safetensors and the processor's files.
        seed: of the weights, the pictures and their order.
        rounds: (optimizer steps, highest learning rate) of each round.
        threads: threads of the arithmetic; the pictures are drawn by as many processes.
        num_pictures: pictures drawn once and reused; half of the uses are mirrored.
        batch_size: pictures a step; each counts with its long and its short caption.

    Returns:
        The last mean loss, the wall-clock seconds and the number of weights.
    """
    begin = time.monotonic()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    processor = make_processor()
    model = make_model(processor)
    for number, (steps, peak_rate) in enumerate(rounds):
        if number:
            torch.manual_seed(seed + number)
            model.half().float()  # as if it had been written and read
        pool = draw_pool(num_pictures, IMAGE_PX, seed + number, threads)
        loss = _fit(model, processor, pool, seed + number, steps, batch_size, peak_rate)
    model.half().save_pretrained(out_folder)
    processor.save_pretrained(out_folder)
    weights = float(sum(p.numel() for p in model.parameters()))
    return {"loss": loss, "seconds": time.monotonic() - begin, "weights": weights}


def make_processor() -> LlavaProcessor:
    """Image processor (squash to a square, nothing cut off) and a small BPE tokenizer."""
    image_processor = CLIPImageProcessor(
        size={"height": IMAGE_PX, "width": IMAGE_PX},
        crop_size={"height": IMAGE_PX, "width": IMAGE_PX},
        do_center_crop=False,
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=_make_tokenizer(),
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=_IMAGE_TOKEN,
        chat_template=_CHAT_TEMPLATE,
    )


def _make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any prompt can be written; each of the demo's words is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        min_frequency=1,
        special_tokens=[*_SPECIAL.values(), _IMAGE_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [*all_words(), *LONG_PROMPTS, *SHORT_PROMPTS, "USER: ", " ASSISTANT:"], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        model_max_length=512,
        extra_special_tokens={"image_token": _IMAGE_TOKEN},
        **_SPECIAL,
    )


def make_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """The untrained model that fits `make_processor`; weights from torch's generator."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=_WIDTH,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        projection_dim=_WIDTH,
        hidden_act="gelu",
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE_TOKEN),
        image_seq_length=_NUM_IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)


def _fit(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pool: Pool,
    seed: int,
    steps: int,
    batch_size: int,
    peak_rate: float,
) -> float:
    """Teacher-forced next-token training on both captions of a picture; the mean loss of the end."""
    rng = np.random.default_rng([seed, 1])
    tokenized = _Captions(pool, processor)
    # Thrown away after training: what lies at each patch teaches the tower much faster than words do.
    facts_head = torch.nn.Linear(_WIDTH, sum(_FACT_CLASSES))
    weights = [*model.parameters(), *facts_head.parameters()]
    decayed = [p for p in weights if p.ndim > 1]
    others = [p for p in weights if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=peak_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_rate, total_steps=steps, pct_start=min(0.08, 300 / steps), cycle_momentum=False
    )
    recent: list[float] = []
    begin = time.monotonic()
    order = np.empty(0, np.int64)
    model.train()
    # At these lengths plain matrix products beat the fused attention's backward pass on a CPU by far.
    model.set_attn_implementation("eager")
    for step in range(steps):
        if len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(pool.pictures))])
        rows, order = order[:batch_size], order[batch_size:]
        pixels, blocks, facts = tokenized.batch(rows, rng)
        words_loss, image = _loss(model, processor, pixels, blocks)
        loss = words_loss + _facts_loss(facts_head(image.float()), facts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        recent = [*recent[-49:], float(words_loss.detach())]
        if (step + 1) % 100 == 0:
            mean, rate = sum(recent) / len(recent), (step + 1) / (time.monotonic() - begin)
            _log.info("step %d/%d loss %.4f, %.2f steps/s", step + 1, steps, mean, rate)
    model.set_attn_implementation("sdpa")
    return sum(recent) / len(recent)


class _Captions:
    """The pool's captions as padded token ids, and batches with a request for each."""

    def __init__(self, pool: Pool, processor: LlavaProcessor) -> None:
        self._pool = pool
        self._tokenizer = processor.tokenizer
        plain = self._tokenize(pool.captions)
        mirrored = self._tokenize(mirrored_captions(pool))
        self._ids = [[plain[0], plain[1]], [mirrored[0], mirrored[1]]]
        self._facts = patch_facts(pool, _GRID)
        self._tails = [
            [request_ids(processor, p) for p in prompts] for prompts in (LONG_PROMPTS, SHORT_PROMPTS)
        ]
        self._mean = torch.tensor(processor.image_processor.image_mean)[:, None, None]
        self._std = torch.tensor(processor.image_processor.image_std)[:, None, None]

    def _tokenize(self, captions: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        end, pad = self._tokenizer.eos_token_id, self._tokenizer.pad_token_id
        padded = []
        for kind in range(2):
            texts = [f" {pair[kind]}" for pair in captions]
            ids = [[*row, end] for row in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]
            block = np.full((len(ids), 32 if kind == 0 else 16), pad, np.int64)
            for row, values in zip(block, ids, strict=True):
                row[: len(values)] = values
            padded.append(block)
        return padded

    def batch(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[torch.Tensor, list[Any], torch.Tensor]:
        """Normalised pictures (B, 3, H, W); for long and short (request ids, caption ids (B, L)); facts."""
        mirrored = (rng.random(len(rows)) < 0.5) & self._pool.may_mirror[rows]
        pictures = self._pool.pictures[rows]
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - self._mean) / self._std
        # Mostly the first wording of a request, sometimes another, so that the wording matters little.
        wording = 0 if rng.random() < 0.7 else int(rng.integers(1, len(LONG_PROMPTS)))
        blocks = []
        for kind in range(2):
            ids = np.where(mirrored[:, None], self._ids[1][kind][rows], self._ids[0][kind][rows])
            used = int((ids != self._tokenizer.pad_token_id).sum(1).max())
            blocks.append((self._tails[kind][wording], torch.from_numpy(ids[:, :used])))
        facts = self._facts[rows]
        facts[mirrored, :3] = facts[mirrored, :3, :, ::-1]
        return pixels, blocks, torch.from_numpy(facts)


def request_ids(processor: LlavaProcessor, prompt: str) -> tuple[list[int], list[int]]:
    """Token ids of a request: up to the picture (its place once), and after it."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    messages: list[Any] = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    place = ids.index(processor.image_token_id)
    return ids[:place], ids[place + 1 :]


def _loss(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pixels: torch.Tensor, blocks: list[Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of both captions, and the picture's tokens (B, tokens, channels).

    One sequence holds the picture's tokens once, then both requests with their captions; the mask keeps
    the second from seeing the first, and its positions start again after the picture.
    """
    batch = len(pixels)
    head = torch.tensor(blocks[0][0][0]).expand(batch, -1)
    pad = processor.tokenizer.pad_token_id
    pieces, labels, lengths = [], [], []
    for (_, tail), caption in blocks:
        request = torch.tensor(tail).expand(batch, -1)
        pieces.append(torch.cat([request, caption], 1))
        targets = torch.full_like(pieces[-1], pad)
        targets[:, len(tail) - 1 : -1] = caption
        labels.append(targets)
        lengths.append(pieces[-1].shape[1])
    prefix = head.shape[1] + _NUM_IMAGE_TOKENS
    mask, positions = _shared_prefix_mask(prefix, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        llava = model.model
        features = llava.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
        image = llava.multi_modal_projector(features)
        embed = llava.language_model.embed_tokens
        inputs = torch.cat(
            [embed(head).to(image.dtype), image, embed(torch.cat(pieces, 1)).to(image.dtype)], 1
        )
        hidden = llava.language_model(
            inputs_embeds=inputs,
            attention_mask=mask.expand(batch, 1, -1, -1),
            position_ids=positions[None].expand(batch, -1),
            use_cache=False,
        ).last_hidden_state[:, prefix:]
        logits = model.lm_head(hidden)
    targets = torch.cat(labels, 1)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=pad), image


def _facts_loss(logits: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of (B, tokens, classes of all facts) to facts (B, 5, rows, columns)."""
    losses = [
        F.cross_entropy(part.transpose(1, 2), facts[:, number].flatten(1))
        for number, part in enumerate(logits.split(_FACT_CLASSES, 2))
    ]
    return torch.stack(losses).sum()


def _shared_prefix_mask(prefix: int, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Additive mask (1, 1, L, L) and positions (L,) of branches that share a prefix."""
    total = prefix + sum(lengths)
    allowed = torch.ones(total, total, dtype=torch.bool).tril()
    positions = torch.arange(total)
    start = prefix
    for length in lengths:
        allowed[start : start + length, prefix:start] = False
        positions[start : start + length] = torch.arange(prefix, prefix + length)
        start += length
    mask = torch.zeros(total, total).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return mask[None, None], positions
