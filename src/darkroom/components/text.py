"""The text conditioner: captions to hidden states, pooled embeddings and a count of what was cut.

Any text encoder that transformers loads. The mathematics is `darkroom.exported.pipeline.encode_captions`, in a
file that exported models carry, so training and drawing cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from darkroom.components.use import TextEncoderUse
from darkroom.exported.pipeline import EncodedCaption, encode_captions, pad_text

__all__ = ["EncodedCaption", "TextEncoder", "count_tokens", "pad_text", "transformers_text_state"]

COUNTED_AT_ONCE = 4096


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder of transformers with its tokenizer.

    fingerprint: SHA-256 of the files that it was loaded from, for the cache's identity.
    """

    model: Any
    tokenizer: Any
    fingerprint: str = ""

    @property
    def text_dim(self) -> int:
        """Channels of a token's hidden state."""
        return self.model.config.hidden_size

    @cached_property
    def unprojected(self) -> Any:
        """The model without its projection, for `use.projected: false`; it stays where the model was then."""
        return without_projection(self.model)

    def pooled_dim_of(self, use: TextEncoderUse) -> int:
        """Channels of the pooled embedding, read as the configuration says."""
        return self.pooled_dim if use.projected else self.text_dim

    @property
    def pooled_dim(self) -> int:
        """Channels of the pooled embedding."""
        projection = getattr(self.model, "text_projection", None)
        return self.text_dim if projection is None else projection.out_features

    def encode(self, captions: list[str], max_tokens: int = 77, batch_size: int = 32) -> list[EncodedCaption]:
        """(hidden (n_i, text_dim), pooled (pooled_dim,), num_tokens_cut) of each caption; "" is the null caption.

        hidden holds real tokens only, beginning and end of text included: the null caption has two. A caption's
        numbers do not depend on the captions encoded with it.

        Raises:
            ValueError: when max_tokens is more than the encoder has positions.
        """
        return encode_captions(self.model, self.tokenizer, captions, max_tokens, batch_size)

    def read(self, captions: list[str], use: TextEncoderUse, batch_size: int = 32) -> list[EncodedCaption]:
        """The same, read as the configuration says; "" gives zeros where `use.no_caption` says so."""
        model = self.model if use.projected else self.unprojected
        encoded = encode_captions(
            *(model, self.tokenizer, captions, use.max_tokens, batch_size),
            *(use.hidden_layer, use.padded, use.pooled),
        )
        if use.no_caption == "empty":
            return encoded
        return [
            EncodedCaption(found.hidden * 0, found.pooled * 0, 0) if caption == "" else found
            for caption, found in zip(captions, encoded, strict=True)
        ]

    def null(self, max_tokens: int = 77) -> EncodedCaption:
        """The empty caption's conditioning: what caption dropout and guidance use."""
        return self.encode([""], max_tokens, batch_size=1)[0]


def without_projection(model: Any) -> Any:
    """A CLIP text tower as the plain CLIPTextModel that SD and SDXL's first encoder are."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if not isinstance(model, CLIPTextModelWithProjection):
        return model
    plain_model: Any = CLIPTextModel(model.config)
    state = model.state_dict()
    plain_model.load_state_dict(
        {name: state.get(f"text_model.{name}", state.get(name)) for name in plain_model.state_dict()}
    )
    plain_model = plain_model.to(device=model.device, dtype=model.dtype)
    return plain_model.eval().requires_grad_(False)


def count_tokens(tokenizer: Any, captions: Sequence[str], use: TextEncoderUse) -> list[tuple[int, int]]:
    """(tokens that `TextEncoder.read` keeps, tokens that it cuts) of each caption, without encoding it."""
    counts = []
    for start in range(0, len(captions), COUNTED_AT_ONCE):
        some = list(captions[start : start + COUNTED_AT_ONCE])
        for row in tokenizer(some, truncation=False, verbose=False)["input_ids"]:
            kept = use.max_tokens if use.padded else min(max(1, len(row)), use.max_tokens)
            counts.append((kept, max(0, len(row) - use.max_tokens)))
    return counts


def transformers_text_state(openai_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower of an OpenAI CLIP state dict, under transformers' CLIPTextModelWithProjection names.

    OpenAI packs query, key and value into one matrix and stores the projection transposed.
    """
    state = {
        "text_model.embeddings.token_embedding.weight": openai_state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": openai_state["positional_embedding"],
        "text_model.final_layer_norm.weight": openai_state["ln_final.weight"],
        "text_model.final_layer_norm.bias": openai_state["ln_final.bias"],
        "text_projection.weight": openai_state["text_projection"].T.contiguous(),
    }
    renamed = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    prefix = "transformer.resblocks."
    for layer in range(num_text_layers(openai_state)):
        target = f"text_model.encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for old, new in renamed.items():
                state[f"{target}{new}.{kind}"] = openai_state[f"{prefix}{layer}.{old}.{kind}"]
            packed = openai_state[f"{prefix}{layer}.attn.in_proj_{kind}"]
            for name, tensor in zip("qkv", packed.chunk(3), strict=True):
                state[f"{target}self_attn.{name}_proj.{kind}"] = tensor.contiguous()
    return state


def num_text_layers(openai_state: dict[str, Tensor]) -> int:
    """Layers of the text tower in an OpenAI CLIP state dict."""
    return len({name.split(".")[2] for name in openai_state if name.startswith("transformer.resblocks.")})
