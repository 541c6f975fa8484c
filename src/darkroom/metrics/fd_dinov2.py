"""FD-DINOv2: the Frechet distance of DINOv2 features (Stein et al., arXiv 2306.04675)."""

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import measure_distance
from darkroom.metrics.features import WithDinov2
from darkroom.metrics.frechet import frechet_distance


class FdDinov2(WithDinov2):
    """Frechet distance of DINOv2 features between drawn and real pictures."""


def measure(section: FdDinov2, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, "FD-DINOv2", frechet_distance, section, inputs)


SPEC = Metric(
    name="fd_dinov2",
    section=FdDinov2,
    measure=measure,
    label="FD-DINOv2",
    direction="lower",
    digits=1,
    summary="distance",
    column="fd_dinov2",
    references=True,
    statistics=True,
)
