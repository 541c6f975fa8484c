"""What a family of networks asks of the other sections of a run, checked before any job starts."""

from collections.abc import Sequence

from darkroom.components.use import TextEncoderUse
from darkroom.config.objective import Objective
from darkroom.families.base import Family, ModelSection
from darkroom.families.table import FAMILIES


def check_family(
    model: ModelSection, uses: Sequence[TextEncoderUse], has_sizes: bool, objective: Objective
) -> None:
    """Refuse a run whose cache or training does not fit its model's family.

    Args:
        uses: `cache.text_encoders`. has_sizes: `cache.size_conditioning`.
    Raises:
        ValueError: names the key and what would be right.
    """
    family = FAMILIES[model.family]
    if model.attention not in family.attentions:
        raise ValueError(
            f"model.attention: {model.attention} is for UNets, and this is a {family.name}; write sdpa, whose"
            " kernels on a GPU keep no matrix of weights either"
        )
    if family.encoders:
        _check_encoders(family, uses)
    _check_nulls(family, uses)
    family.check(model, uses)
    is_flow = objective.prediction == "flow"
    if family.objective == "flow" and not is_flow:
        raise ValueError(
            f"train.objective.prediction: {family.name} is a rectified flow; write prediction: flow"
        )
    if family.objective == "diffusion" and is_flow:
        raise ValueError(
            f"train.objective: diffusers' pipeline of a {family.name} draws diffusion models; write prediction:"
            " epsilon (or v) and schedule: scaled_linear"
        )
    if family.has_sizes and not has_sizes:
        raise ValueError(f"cache.size_conditioning: {family.name} is told sizes and crops; write true")


def check_attention(attention: str, device: str) -> None:
    """Refuse a GPU's operators where a training runs on another device ("cpu").

    Raises:
        ValueError: says what to write instead.
    """
    if attention not in ("sdpa", "sliced") and device != "cuda":
        raise ValueError(
            f"model.attention {attention} needs a GPU; this training runs on {device}: write sdpa"
        )


def check_base_dtype(base_dtype: str, device: str) -> None:
    """Refuse base weights in 8 or 4 bits where a training runs on another device than a GPU ("cpu").

    Raises:
        ValueError: says what to write instead.
    """
    if base_dtype != "float32" and device != "cuda":
        raise ValueError(
            f"model.lora.base_dtype {base_dtype} needs a GPU; this training runs on {device}: write float32"
        )


def check_base(base_dtype: str, parallelism: str, compile: str) -> None:
    """Refuse what goes with whole base weights alone, where these are kept in 8 or 4 bits.

    Raises:
        ValueError: says what to write instead.
    """
    for option, value, right in (("parallelism", parallelism, "ddp"), ("compile", compile, "off")):
        if base_dtype != "float32" and value != right:
            raise ValueError(
                f"model.lora.base_dtype: {base_dtype} goes with train.{option}: {right}, and it is {value};"
                f" write {right}, or base_dtype: float32"
            )


def check_dtype(attention: str, dtype: str) -> None:
    """Refuse flash where a training computes in float32.

    Raises:
        ValueError: says what to write instead.
    """
    if attention == "flash" and dtype == "float32":
        raise ValueError("model.attention: flash computes in bfloat16; write train.dtype: bfloat16, or sdpa")


def check_dropout(dropout: Sequence[float], encoders: Sequence[TextEncoderUse]) -> None:
    """Refuse `train.encoder_dropout` of another number of text encoders.

    Raises:
        ValueError: names them.
    """
    if dropout and len(dropout) != len(encoders):
        raise ValueError(
            f"train.encoder_dropout: has {len(dropout)} numbers for {len(encoders)} text encoders"
            f" ({', '.join(encoder.name for encoder in encoders)}); write one for each"
        )


def _check_nulls(family: Family, uses: Sequence[TextEncoderUse]) -> None:
    """Refuse a null that training would see and the exported pipeline would not draw with."""
    zeros = [use.no_caption == "zeros" for use in uses]
    if family.nulls == "empty" and any(zeros):
        raise ValueError(
            f"cache.text_encoders.{zeros.index(True)}.no_caption: diffusers' pipeline of a {family.name} guides"
            " away from the empty text, never from zeros; write no_caption: empty"
        )
    if family.nulls == "alike" and any(zeros) and not all(zeros):
        raise ValueError(
            f"cache.text_encoders.{zeros.index(False)}.no_caption: diffusers' pipeline of a {family.name} has"
            " zeros for all text encoders or for none; write the same no_caption for each"
        )


def _check_encoders(family: Family, uses: Sequence[TextEncoderUse]) -> None:
    encoders = family.encoders
    if len(uses) != len(encoders):
        names = ", ".join(encoder.what for encoder in encoders)
        raise ValueError(
            f"cache.text_encoders: {family.name} reads {len(encoders)} ({names}), and {len(uses)} are listed"
        )
    for place, (use, encoder) in enumerate(zip(uses, encoders, strict=True)):
        wanted = {"hidden_layer": encoder.hidden_layer, "padded": True, "pooled": encoder.pooled}
        if encoder.pooled:
            wanted["projected"] = encoder.projected
        for name, value in wanted.items():
            if getattr(use, name) != value:
                raise ValueError(
                    f"cache.text_encoders.{place}.{name}: {family.name} reads its {encoder.what} with {name}:"
                    f" {str(value).lower()}"
                )
        if encoder.max_tokens is not None and use.max_tokens > encoder.max_tokens:
            raise ValueError(
                f"cache.text_encoders.{place}.max_tokens: diffusers' {family.title} reads {encoder.max_tokens}"
                f" {encoder.what} tokens at most, not {use.max_tokens}; write {encoder.max_tokens} or less"
            )
