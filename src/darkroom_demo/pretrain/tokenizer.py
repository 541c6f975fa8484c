"""The demo CLIP's tokenizer: a small byte-pair vocabulary in CLIP's own format."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom_demo.alttexts import alt_text
from darkroom_demo.pretrain.data import Item, describe, draw_picture
from darkroom_demo.scenes import SHAPES

CONTEXT_LENGTH = 32
MAX_VOCABULARY = 1000
START, END = "<|startoftext|>", "<|endoftext|>"


def tokenize(tokenizer: Any, texts: list[str]) -> Tensor:
    """Token ids (n, CONTEXT_LENGTH), padded with 0: whatever follows the end-of-text token is never read."""
    rows = tokenizer(texts, truncation=True, max_length=CONTEXT_LENGTH)["input_ids"]
    return torch.tensor([row + [0] * (CONTEXT_LENGTH - len(row)) for row in rows])


def load_tokenizer(folder: Path) -> Any:
    """transformers' CLIPTokenizer of a folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder))


def write_tokenizer(out_folder: Path, num_pictures: int = 4000) -> None:
    """Train a byte-pair vocabulary on captions and alt-texts, and write it in CLIP's format.

    The end-of-text token comes last: OpenAI's CLIP finds the end of a text as its highest id.
    """
    counts = _word_counts(num_pictures)
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges = byte_pairs(counts, MAX_VOCABULARY - 2 - len(vocabulary))
    vocabulary += [first + second for first, second in merges] + [START, END]
    ids = {token: i for i, token in enumerate(vocabulary)}
    assert len(ids) == len(vocabulary)
    text = json.dumps(ids, ensure_ascii=False, indent=0)
    (out_folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (out_folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(
        out_folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": CONTEXT_LENGTH,
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
        },
    )


def _word_counts(num_pictures: int) -> Counter[str]:
    """Words, as CLIP's tokenizer cuts and spells them, of the demo's captions and alt-texts."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.BPE())
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    rng, counts = np.random.default_rng(0), Counter[str]()
    for _ in range(num_pictures):
        _, item = draw_picture(rng, rendered=False)
        for text, weight in ((describe(item, rng)[0], 20), (_alt_text(item, rng), 1)):
            for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
                counts[word] += weight
    return counts


def _alt_text(item: Item, rng: np.random.Generator) -> str:
    return alt_text(rng, "", "", (item.text,) if item.text else SHAPES, item.scene)[0]


def byte_pairs(counts: Counter[str], num_merges: int) -> list[tuple[str, str]]:
    """The merges of byte-pair encoding (arXiv 1508.07909), the most frequent pair first, ties by spelling."""
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in sorted(counts)}
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for pieces in words.values():
            at = 0
            while at < len(pieces) - 1:
                if (pieces[at], pieces[at + 1]) == best:
                    pieces[at : at + 2] = ["".join(best)]
                at += 1
    return merges


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
