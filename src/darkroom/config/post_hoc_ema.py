"""Which averages a training keeps so that those of other widths can be reconstructed from them."""

from typing import Annotated

from pydantic import Field, field_validator

from darkroom.settings.base import Section

# An average over all steps alike has 0.2887, the square root of 1/12; one of 0.001 hardly averages.
MIN_WIDTH, MAX_WIDTH = 0.001, 0.28
# As many equations as snapshots and widths have to be solved.
MAX_SNAPSHOTS = 1000


class PostHocEma(Section):
    """EDM2's power-function averages: snapshots of some widths, from which any other is reconstructed."""

    widths: tuple[Annotated[float, Field(ge=MIN_WIDTH, lt=MAX_WIDTH)], ...] = Field(
        (0.05, 0.1),
        min_length=2,
        max_length=4,
        description="of the averages that are kept: the relative standard deviation of each one's profile, as a"
        " part of the training",
    )
    snapshot_every_steps: int = Field(
        ge=1, description="keep the averages after so many steps, and after the last one, for good"
    )

    @field_validator("widths")
    @classmethod
    def _different(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(widths)) < len(widths):
            twice = next(width for width in widths if widths.count(width) > 1)
            raise ValueError(f"{twice} is there twice; write each width once")
        return widths

    def steps(self, num_steps: int) -> list[int]:
        """The steps of the snapshots of a training that ends after `num_steps`, in order."""
        return [*range(self.snapshot_every_steps, num_steps, self.snapshot_every_steps), num_steps]


def check_post_hoc_ema(wanted: PostHocEma | None, num_steps: int, optimizer: str) -> None:
    """Refuse snapshots from which nothing can be reconstructed.

    Raises:
        ValueError: names the key.
    """
    if wanted is None:
        return
    every = f"post_hoc_ema.snapshot_every_steps {wanted.snapshot_every_steps}"
    if wanted.snapshot_every_steps >= num_steps:
        raise ValueError(
            f"{every} must be below num_steps {num_steps}: other widths are reconstructed from several snapshots,"
            " best from 20 or more"
        )
    num = len(wanted.steps(num_steps))
    if num > MAX_SNAPSHOTS:
        raise ValueError(
            f"{every} makes {num} snapshots of {num_steps} steps, and {MAX_SNAPSHOTS} are the most; write"
            f" {-(-num_steps // MAX_SNAPSHOTS)} or more"
        )
    if optimizer == "schedulefree":
        raise ValueError(
            "optimizer schedulefree averages weights itself, and post_hoc_ema would average what it steps from;"
            " leave post_hoc_ema out, or write optimizer: adamw"
        )
