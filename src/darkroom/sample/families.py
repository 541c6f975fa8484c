"""The pipeline of a trained network, for export and for drawing."""

from collections.abc import Sequence
from typing import Any

from darkroom.components.text import TextEncoder
from darkroom.components.use import TextEncoderUse
from darkroom.families.base import PipelineComponents
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import merged


def make_family_pipeline(
    denoiser: Denoiser,
    vae: Any,
    text_encoders: Sequence[TextEncoder],
    uses: Sequence[TextEncoderUse],
    is_single: bool,
    scheduler: Any,
) -> Any:
    """A pipeline of components in memory; adapters are merged into a copy of the weights.

    Args: see `families.base.PipelineComponents`.
    Raises:
        ValueError: a VAE that the family's pipeline cannot decode with.
    """
    network = merged(denoiser.network).eval()
    parts = PipelineComponents(network, denoiser.extension, vae, text_encoders, uses, is_single, scheduler)
    return denoiser.family.pipeline(parts)
