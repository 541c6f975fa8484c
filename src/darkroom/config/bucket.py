"""What shapes pictures are cut to."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from darkroom.settings.base import ADDED, Section


class Bucket(Section):
    """Aspect-ratio buckets of about one area."""

    resolution_px: int = Field(512, ge=16, description="side of the square that fixes the area")
    step_px: int = Field(64, ge=8, description="sides are multiples of this")
    min_side_px: int = Field(256, ge=8, description="shortest bucket side")
    max_side_px: int = Field(1024, ge=8, description="longest bucket side")
    allow_upscale: bool = Field(False, description="keep pictures smaller than their bucket")
    rule: Annotated[Literal["nearest_area", "novelai"], ADDED] = Field(
        "nearest_area",
        description="shapes of about one area, nearest by log aspect ratio; or NovelAI's: the greatest within"
        " max_area_px, nearest by aspect ratio",
    )
    max_area_px: Annotated[int | None, ADDED] = Field(
        None, ge=64, description="of rule novelai: width x height of a bucket at most; NovelAI's is 393216"
    )

    @model_validator(mode="after")
    def _area(self) -> "Bucket":
        if (self.rule == "novelai") != (self.max_area_px is not None):
            raise ValueError("rule novelai and max_area_px go together: write both, or neither")
        if self.max_area_px is not None and self.resolution_px**2 > self.max_area_px:
            raise ValueError(
                f"resolution_px {self.resolution_px} is a square of {self.resolution_px**2} pixels, more than"
                f" max_area_px {self.max_area_px}"
            )
        return self

    @model_validator(mode="after")
    def _sides(self) -> "Bucket":
        for name in ("resolution_px", "min_side_px", "max_side_px"):
            value = getattr(self, name)
            if value % self.step_px:
                near = max(self.step_px, round(value / self.step_px) * self.step_px)
                raise ValueError(f"{name} {value} is no multiple of step_px {self.step_px}; {near} would be")
        if not self.min_side_px <= self.resolution_px <= self.max_side_px:
            raise ValueError(
                f"resolution_px {self.resolution_px} is not within min_side_px {self.min_side_px} and max_side_px"
                f" {self.max_side_px}; write another min_side_px or max_side_px"
            )
        return self
