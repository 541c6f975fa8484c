"""How pictures are drawn."""

from dataclasses import dataclass, field
from typing import Literal

from darkroom.config.run import Sampling

GuidanceConvention = Literal["diffusers", "paper"]


@dataclass(frozen=True)
class DrawOptions:
    """How pictures are drawn.

    sampler: of `samplers.SAMPLERS`; None is the exported scheduler as it is.
    guidance_rescale: share of guidance's overexposure that is taken back, 0 to 1 (Lin et al., arXiv 2305.08891).
    batch_size: pictures a forward pass (twice as many with guidance).
    dtype: of the network's and the decoder's autocast: float32 (none), bfloat16, float16 or auto.
    """

    sampling: Sampling = field(default_factory=Sampling)
    sampler: str | None = None
    guidance_rescale: float = 0.0
    negative_prompt: str = ""
    batch_size: int = 4
    dtype: str = "auto"


def guidance_scale(value: float, convention: GuidanceConvention = "diffusers") -> float:
    """A guidance scale in diffusers' convention, p_un + g (p_con - p_un), where 1 is none.

    "paper" is Ho and Salimans' (arXiv 2207.12598), (1 + w) p_con - w p_un, where 0 is none: g = 1 + w. Stable
    Diffusion 3 From Scratch has it: its 5 to 7 are 6 to 8 here.

    Raises:
        ValueError: guidance below none.
    """
    none = 0.0 if convention == "paper" else 1.0
    if value < none:
        raise ValueError(
            f"guidance {value:g} is below {none:g}, which is none in the {convention} convention"
        )
    return value + 1 if convention == "paper" else value
