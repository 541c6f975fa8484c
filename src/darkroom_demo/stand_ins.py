"""A small T5 encoder in the place of SD3's, for the recipes' twins: random weights, the demo world's words.

    python -m darkroom_demo.stand_ins src/darkroom_demo/components

writes it again, with the same bytes.
"""

import sys
from pathlib import Path

import torch

from darkroom_demo.captions import NUMBERS, PLURALS
from darkroom_demo.scenes import COLORS, GROUNDS, PATTERNS, SHAPES

_MORE_WORDS = "a photo of at the in on left right top bottom middle small large ground above below and sks"
_WIDTH = 32
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # what a word begins with


def write_t5(folder: str | Path) -> None:
    """Write `folder`/t5: two layers, width 32, a unigram tokenizer of words and letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    words = [*COLORS, *SHAPES, *PLURALS.values(), *PATTERNS, *NUMBERS.values(), *_MORE_WORDS.split()]
    words += [word for ground in GROUNDS for word in ground.split()]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocabulary = [*special, *((f"\N{LOWER ONE EIGHTH BLOCK}{word}", -2.0) for word in sorted(set(words)))]
    vocabulary += [
        ("\N{LOWER ONE EIGHTH BLOCK}", -3.0),
        *((letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz,."),
    ]
    path = Path(folder) / "t5"
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(path)
    config = T5Config(
        vocab_size=len(vocabulary), d_model=_WIDTH, d_kv=8, d_ff=2 * _WIDTH, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5EncoderModel(config).save_pretrained(path)


if __name__ == "__main__":
    write_t5(sys.argv[1])
