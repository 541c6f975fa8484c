"""Tiny text encoders of every kind, in folders as real ones have them: weights, config and a real tokenizer."""

import json
from pathlib import Path

import torch
from test_components import write_tokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from darkroom.components.base import Component

WORDS = ["red", "blue", "a", "circle", "square", "photo", "of", "the", "and", "green", "star"]
CLIP_TOKENS = 16


def component(folder: Path, kind: str = "text_encoder") -> Component:
    return Component(kind=kind, path=str(folder))


def write_clip_text(folder: Path, width: int, projection: int | None, seed: int = 0) -> Path:
    """A CLIP text tower in transformers' format; projection None is a plain CLIPTextModel."""
    vocabulary = write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": CLIP_TOKENS}))
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=CLIP_TOKENS, projection_dim=projection or 8,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    )  # fmt: skip
    model = CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)
    model.save_pretrained(folder)
    return folder


def write_t5(folder: Path, width: int, seed: int = 1) -> Path:
    """A T5 encoder with a unigram tokenizer of whole words."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocab = [*special, *((f"▁{word}", -2.0) for word in WORDS), ("▁", -3.0)]
    vocab += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(vocab), d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def _word_tokenizer(folder: Path, start: str, end: str | None) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {word: i for i, word in enumerate(["<pad>", start, *([end] if end else []), "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    single = f"{start} $A {end}" if end else f"{start} $A"
    special = [(token, words[token]) for token in (start, end) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    named = {"bos_token": start, "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **named, **({"eos_token": end} if end else {})
    ).save_pretrained(folder)
    return len(words)


def write_gemma(folder: Path, width: int, seed: int = 2) -> Path:
    """A Gemma 2 decoder, whose texts begin with <bos> and do not end."""
    vocabulary = _word_tokenizer(folder, "<bos>", None)
    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, pad_token_id=0, bos_token_id=1,
        max_position_embeddings=64, sliding_window=64,
    )  # fmt: skip
    Gemma2Model(config).save_pretrained(folder)
    return folder


def write_modernbert(folder: Path, width: int, seed: int = 3) -> Path:
    """A ModernBERT encoder, whose texts stand between [CLS] and [SEP]."""
    vocabulary = _word_tokenizer(folder, "[CLS]", "[SEP]")
    torch.manual_seed(seed)
    config = ModernBertConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        max_position_embeddings=64,
    )  # fmt: skip
    ModernBertModel(config).save_pretrained(folder)
    return folder
