"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

import math


def learning_rate(
    step: int, num_steps: int, peak: float, num_warmup_steps: int = 0, minimum: float = 0.0
) -> float:
    """Linear warm-up to `peak`, then half a cosine down towards `minimum`.

    Args:
        step: the optimizer step about to be taken, 0 for the first of num_steps.
        num_steps: steps of the whole run; from this step on the rate is `minimum`.
        num_warmup_steps: step k < num_warmup_steps has (k + 1) / num_warmup_steps of the peak.
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
        return peak * (step + 1) / num_warmup_steps
    progress = min(1.0, (step - num_warmup_steps) / (num_steps - num_warmup_steps))
    return minimum + (peak - minimum) * (1 + math.cos(math.pi * progress)) / 2
