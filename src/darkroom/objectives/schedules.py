"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

import math
from typing import Literal

Decay = Literal["cosine", "constant", "linear"]
Warmup = Literal["linear", "cosine"]


def learning_rate(
    step: int,
    num_steps: int,
    peak: float,
    num_warmup_steps: int = 0,
    minimum: float = 0.0,
    decay: Decay = "cosine",
    warmup: Warmup = "linear",
    num_decay_steps: int | None = None,
) -> float:
    """A warm-up to `peak`, then half a cosine or a line down towards `minimum`, or `peak` to the end.

    With `num_decay_steps` the rate is `peak` between the warm-up and the last so many steps: warm-up, stable,
    decay (Hu et al. 2024, arXiv 2404.06395).

    Args:
        step: the optimizer step about to be taken, 0 for the first of num_steps.
        num_steps: steps of the whole run; from this step on the rate is `minimum`.
        num_warmup_steps: step k < num_warmup_steps has the share x = (k + 1) / num_warmup_steps of the warm-up
            behind it, and x of the peak, or (1 - cos(pi x)) / 2 of it with warmup="cosine".
    Raises:
        ValueError: for a negative step, a warm-up as long as the run, or a minimum above the peak.
    """
    if step < 0:
        raise ValueError(f"step {step} is negative")
    if not 0 <= num_warmup_steps < num_steps:
        raise ValueError(
            f"num_warmup_steps {num_warmup_steps} must be at least 0 and below num_steps {num_steps}"
        )
    if minimum > peak:
        raise ValueError(f"min_learning_rate {minimum:g} is above learning_rate {peak:g}")
    if step < num_warmup_steps:
        if warmup == "cosine":
            return peak * (1 - math.cos(math.pi * (step + 1) / num_warmup_steps)) / 2
        return peak * (step + 1) / num_warmup_steps
    if decay == "constant":
        return peak
    length = num_steps - num_warmup_steps if num_decay_steps is None else num_decay_steps
    progress = min(1.0, max(0.0, (step - num_steps + length) / length))
    if decay == "linear":
        return minimum + (peak - minimum) * (1 - progress)
    return minimum + (peak - minimum) * (1 + math.cos(math.pi * progress)) / 2


def half_life_steps(ema_decay: float, update_every: int = 1) -> float:
    """Steps after which a weight counts half in a moving average: update_every x ln(1/2) / ln(decay)."""
    return update_every * math.log(0.5) / math.log(ema_decay) if ema_decay > 0 else 0.0
