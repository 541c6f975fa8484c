"""Rescaled guidance for pipelines of diffusers that know none, Stable Diffusion 3's among them."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from darkroom.exported.pipeline import rescale_guided


def knows_rescale(pipeline: Any) -> bool:
    """Whether a pipeline takes `guidance_rescale` itself."""
    return "guidance_rescale" in inspect.signature(pipeline.__call__).parameters


@contextmanager
def rescaling(pipeline: Any, share: float) -> Iterator[None]:
    """Inside the block the pipeline's guided predictions are rescaled before its scheduler sees them.

    The conditional prediction is the second half of what its transformer gave for this step.

    share: see `rescale_guided`; 0 changes nothing.

    Raises:
        ValueError: the pipeline guides in another way.
    """
    if not share:
        yield
        return
    if "true_cfg_scale" in inspect.signature(pipeline.__call__).parameters:
        raise ValueError(
            f"guidance rescale: a {type(pipeline).__name__} does not predict with and without the prompt in one"
            " batch; leave it out"
        )
    predictions: list[Tensor] = []
    scheduler = pipeline.scheduler
    step = scheduler.step

    def keep(_: Any, __: Any, output: Any) -> None:
        predictions[:] = [output[0]]

    def rescaled_step(guided: Tensor, *arguments: Any, **options: Any) -> Any:
        is_guided = len(predictions[0]) == 2 * len(guided)
        if is_guided:
            guided = rescale_guided(guided, predictions[0].chunk(2)[1].to(guided.dtype), share)
        return step(guided, *arguments, **options)

    hook = pipeline.transformer.register_forward_hook(keep)
    scheduler.step = rescaled_step
    try:
        yield
    finally:
        hook.remove()
        del scheduler.step
