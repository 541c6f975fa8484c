"""PickScore: which of two pictures of a prompt people picked, as a CLIP ViT-H/14 learned it (arXiv 2305.01569).

The cosine times the weights' own scale.
"""

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.embeddings import WithClip, load
from darkroom.metrics.preference import measure_preference


class PickScore(WithClip):
    """PickScore: what people would pick, by a CLIP with its weights."""


def measure(section: PickScore, inputs: Inputs) -> Measured:
    """The score of every picture."""
    clip, identity = load(section, inputs)
    scale = float(clip.towers.model.logit_scale.exp())
    words = "cos of picture and prompt times the scale of the weights {}".format
    return measure_preference(SPEC.name, section, inputs, clip, identity, scale, words)


SPEC = Metric(
    name="pickscore",
    section=PickScore,
    measure=measure,
    label="PickScore",
    direction="higher",
    digits=2,
    summary="mean",
    column="pickscore",
)
