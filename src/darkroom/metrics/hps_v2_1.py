"""HPSv2.1: which of two pictures of a prompt people prefer, as a CLIP ViT-H/14 learned it (arXiv 2306.09341).

100 times the cosine, as the authors' benchmark tells it; their function for single pictures gives the cosine.
Pictures keep their shape: the longer side is resized to the network's, and the rest is black.
"""

from dataclasses import replace

from darkroom.components.base import PAD
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.embeddings import WithClip, load
from darkroom.metrics.extractor import Extractor
from darkroom.metrics.preference import measure_preference


class HpsV21(WithClip):
    """HPSv2.1: what people would prefer, by a CLIP with its weights."""

    @property
    def extractor(self) -> Extractor:
        """See `Featured`."""
        return replace(super().extractor, resize=PAD)


def measure(section: HpsV21, inputs: Inputs) -> Measured:
    """The score of every picture."""
    clip, identity = load(section, inputs)
    words = "100 cos of picture and prompt, as HPSv2, weights {}".format
    return measure_preference(SPEC.name, section, inputs, clip, identity, 100.0, words)


SPEC = Metric(
    name="hps_v2_1",
    section=HpsV21,
    measure=measure,
    label="HPSv2.1",
    direction="higher",
    digits=2,
    summary="mean",
    column="hps_v2_1",
)
