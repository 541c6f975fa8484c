"""How a training is judged on the way."""

from pydantic import Field

from darkroom.config.drawing import Draw, Measures
from darkroom.metrics.table import METRICS
from darkroom.settings.base import Section


class Watch(Section):
    """The averaged weights of steps on the way, judged as the finished model is, by jobs of their own."""

    every_steps: int = Field(ge=1, description="judge after so many steps, and after the last one")
    best: str = Field(description="the metric of `measure` that says which step is the best")
    metrics: tuple[str, ...] = Field(
        (), description="of those of `measure`, what is measured besides `best`; none is none"
    )
    max_prompts: int = Field(
        0, ge=0, description="first so many prompts of each task, of those of `draw`; 0 is all of them"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many judged steps in a row without a better one; null: never",
    )

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics, in the order of reports."""
        return tuple(name for name in METRICS if name in (self.best, *self.metrics))

    def draw(self, draw: Draw) -> Draw:
        """How pictures are drawn: as those of the finished model, of fewer prompts."""
        counts = [number for number in (draw.max_prompts, self.max_prompts) if number]
        return draw.model_copy(update={"max_prompts": min(counts, default=0)})

    def steps(self, num_steps: int) -> list[int]:
        """The steps that are judged, in order."""
        return [*range(self.every_steps, num_steps, self.every_steps), num_steps]


def check_watch(watch: Watch | None, num_steps: int, measure: Measures, is_mixed: bool) -> None:
    """Refuse what cannot be judged.

    Raises:
        ValueError: names the key.
    """
    if watch is None:
        return
    if watch.every_steps >= num_steps:
        raise ValueError(f"watch.every_steps {watch.every_steps} must be below train.num_steps {num_steps}")
    for key, names in (("best", (watch.best,)), ("metrics", watch.metrics)):
        if missing := [name for name in names if name not in measure.chosen]:
            raise ValueError(f"watch.{key}: measure has no {missing[0]}; it has {', '.join(measure.chosen)}")
    compare = [name for name in watch.measured if METRICS[name].references]
    if compare and is_mixed:
        raise ValueError(
            f"watch: {compare[0]} compares with real pictures, in the shares that a training on several datasets"
            " has taken at its end; write metrics that look at prompts alone"
        )
