"""FID: the Frechet distance of Inception features (Heusel et al., arXiv 1706.08500)."""

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import measure_distance
from darkroom.metrics.features import WithInception
from darkroom.metrics.frechet import frechet_distance


class Fid(WithInception):
    """FID between drawn and real pictures. Numbers of other resizes and of other numbers of pictures differ."""


def measure(section: Fid, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, "FID", frechet_distance, section, inputs)


SPEC = Metric(
    name="fid",
    section=Fid,
    measure=measure,
    label="FID",
    direction="lower",
    digits=2,
    summary="distance",
    column="fid",
    references=True,
    statistics=True,
)
