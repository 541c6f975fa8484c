"""What a training holds out, and how often it looks at it."""

from pydantic import Field

from darkroom.settings.base import Section


class Validation(Section):
    """Pictures that no step shows, and the loss on them: always the same pictures, noise and noise levels."""

    share: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="of the pictures; a picture is held out with all of its copies, so far as scorers found them",
    )
    every_steps: int = Field(500, ge=1, description="and after the last step")
    num_levels: int = Field(
        8, ge=1, description="noise levels a picture, spread evenly over those that the training draws"
    )

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether the loss is measured after so many completed steps of a training of `num_steps`."""
        return step % self.every_steps == 0 or step == num_steps
