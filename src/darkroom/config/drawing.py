"""How a run draws pictures, and how these are measured and compared."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, create_model, model_validator

from darkroom.benchmarks.table import Prompts
from darkroom.metrics.table import METRICS
from darkroom.settings.base import ADDED, Section


class Sampling(Section):
    """How pictures are drawn from a model."""

    num_inference_steps: int = Field(28, ge=1)
    guidance_scale: float = Field(5.0, ge=1, description="1 is no guidance (diffusers' convention)")
    width_px: int = Field(512, ge=16)
    height_px: int = Field(512, ge=16)


class Draw(Section):
    """Pictures for held-out prompts, of the trained and of the untrained model."""

    prompts: Prompts = Field(description="which prompts; `kind` decides which of the tables below holds")
    num_pictures_per_prompt: int = Field(4, ge=1)
    max_prompts: int = Field(0, ge=0, description="first so many prompts of each task; 0 is all")
    prompts_per_chunk: int = Field(
        64, ge=1, description="prompts of one job, as whole forward passes; changes no picture"
    )
    seed: int = Field(0, ge=0, description="picture k of prompt p has a seed of (seed, p, k)")
    batch_size: int = Field(16, ge=1, description="pictures a forward pass")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="autocast; auto is bfloat16 where that is fast, else float32"
    )
    sampling: Sampling = Sampling()
    num_threads: int = Field(0, ge=0, description="CPU threads; 0 leaves it to torch")


class Measures(Section):
    """What is measured on the pictures, by metric. A run that extends another leaves one out with null."""

    pictures_per_job: Annotated[int, ADDED] = Field(
        10_000,
        ge=1,
        description="pictures whose features one job computes, as whole forward passes; changes no number",
    )

    @model_validator(mode="after")
    def _some(self) -> "Measures":
        if not self.chosen:
            raise ValueError(f"names no metric; write one or more of {', '.join(METRICS)}")
        return self

    @property
    def chosen(self) -> dict[str, Section]:
        """Metric -> its options, in the order of reports."""
        sections = {name: getattr(self, name) for name in METRICS}
        return {name: section for name, section in sections.items() if section is not None}


if TYPE_CHECKING:
    Measure = Measures
else:
    Measure = create_model(
        "Measure",
        __base__=Measures,
        __doc__=Measures.__doc__,
        **{
            name: (
                Annotated[metric.section | None, ADDED],
                Field(None, description=f"{metric.label}; {metric.direction} is better"),
            )
            for name, metric in METRICS.items()
        },
    )


class Evaluate(Section):
    """Scores with intervals, and how the trained model differs from the untrained."""

    num_bootstrap: int = Field(1000, ge=10, description="resamples (of prompts) for the intervals")
