"""What each family of networks asks of the other sections of a run, checked before any job starts."""

from typing import TYPE_CHECKING, NamedTuple

from darkroom.config.model import SD3Model

if TYPE_CHECKING:
    from darkroom.config.run import Run


class Reading(NamedTuple):
    """How a family's pipeline in diffusers reads one text encoder."""

    what: str
    hidden_layer: int
    pooled: bool


SD3_MAX_TOKENS = 512  # of T5, which diffusers' pipeline reads at most
# Text encoders in order. The MMDiT takes any, and is not here.
READINGS = {
    "unet-sd": (Reading("CLIP", -1, False),),
    "unet-sdxl": (Reading("CLIP-L", -2, False), Reading("OpenCLIP-G", -2, True)),
    "sd3": (Reading("CLIP-L", -2, True), Reading("OpenCLIP-G", -2, True), Reading("T5", -1, False)),
}


def check_family(run: "Run") -> None:
    """Refuse a run whose cache or training does not fit its model's family.

    Raises:
        ValueError: names the key and what would be right.
    """
    _check_dropout(run)
    family = run.model.family
    if run.model.attention == "flash" and run.train.dtype == "float32":
        raise ValueError("model.attention: flash computes in bfloat16; write train.dtype: bfloat16, or sdpa")
    if run.model.attention == "sliced" and not family.startswith("unet"):
        raise ValueError(
            f"model.attention: sliced is for UNets, and this is a {family}; write sdpa, whose kernels on a GPU"
            " keep no matrix of weights either"
        )
    if family not in READINGS:
        return
    _check_readings(run, family)
    is_flow = run.train.objective.prediction == "flow"
    if family == "sd3" and not is_flow:
        raise ValueError("train.objective.prediction: an sd3 is a rectified flow; write prediction: flow")
    if family != "sd3" and is_flow:
        raise ValueError(
            f"train.objective: diffusers' pipeline of a {family} draws diffusion models; write prediction: epsilon"
            " (or v) and schedule: scaled_linear"
        )
    if family == "unet-sdxl" and not run.cache.size_conditioning:
        raise ValueError("cache.size_conditioning: unet-sdxl is told sizes and crops; write true")


def check_attention(attention: str, device: str) -> None:
    """Refuse a GPU's operators where a training runs on another device ("cpu").

    Raises:
        ValueError: says what to write instead.
    """
    if attention not in ("sdpa", "sliced") and device != "cuda":
        raise ValueError(
            f"model.attention {attention} needs a GPU; this training runs on {device}: write sdpa"
        )


def _check_readings(run: "Run", family: str) -> None:
    readings, uses = READINGS[family], run.cache.text_encoders
    if len(uses) != len(readings):
        names = ", ".join(reading.what for reading in readings)
        raise ValueError(
            f"cache.text_encoders: {family} reads {len(readings)} ({names}), and {len(uses)} are listed"
        )
    for place, (use, reading) in enumerate(zip(uses, readings, strict=True)):
        wanted = {"hidden_layer": reading.hidden_layer, "padded": True, "pooled": reading.pooled}
        for name, value in wanted.items():
            if getattr(use, name) != value:
                raise ValueError(
                    f"cache.text_encoders.{place}.{name}: {family} reads its {reading.what} with {name}:"
                    f" {str(value).lower()}"
                )
    if family == "sd3" and uses[-1].max_tokens > SD3_MAX_TOKENS:
        raise ValueError(
            f"cache.text_encoders.2.max_tokens: diffusers' SD3 reads {SD3_MAX_TOKENS} T5 tokens at most, not"
            f" {uses[-1].max_tokens}; write {SD3_MAX_TOKENS} or less"
        )
    context = run.model.context if isinstance(run.model, SD3Model) else None
    if context is not None and uses[-1].max_tokens <= context.num_base_tokens:
        raise ValueError(
            f"cache.text_encoders.2.max_tokens: model.context changes the tokens after the first"
            f" {context.num_base_tokens}, and {uses[-1].max_tokens} are kept; write more"
        )


def _check_dropout(run: "Run") -> None:
    dropout, encoders = run.train.encoder_dropout, run.cache.encoders
    if dropout and len(dropout) != len(encoders):
        raise ValueError(
            f"train.encoder_dropout: has {len(dropout)} numbers for {len(encoders)} text encoders"
            f" ({', '.join(encoder.name for encoder in encoders)}); write one for each"
        )
