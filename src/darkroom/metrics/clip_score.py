"""CLIPScore: how well pictures fit their prompts (Hessel et al., arXiv 2104.08718).

100 times the cosine, no prefix before the prompt, each picture's score clamped at 0. Numbers of different
CLIPs, scales or prefixes do not compare: the protocol records the model beside the score.
"""

import numpy as np

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.embeddings import WithClip, cosines, load, with_prompts


class ClipScore(WithClip):
    """CLIPScore: how well pictures fit their prompts."""


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """100 max(cos, 0) of every picture and its prompt: float64, (pictures,).

    Args:
        images, texts: embeddings, float, (pictures, dimensions); normalised here.

    Raises:
        ValueError: there are not as many texts as pictures.
    """
    return 100 * np.maximum(cosines(images, texts), 0)


def measure(section: ClipScore, inputs: Inputs) -> Measured:
    """The score of every picture."""
    clip, identity = load(section, inputs)
    table = with_prompts(SPEC.name, section, inputs, clip, clip_scores)
    definition = f"100 max(cos, 0), {section.clip}, no prefix"
    return Measured(table, {"definition": definition, "clip": identity})


SPEC = Metric(
    name="clip_score",
    section=ClipScore,
    measure=measure,
    label="CLIPScore",
    direction="higher",
    digits=1,
    summary="mean",
    column="clip_score",
)
