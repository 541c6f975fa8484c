"""What is minimised: noise levels, targets, losses and schedules, as small pure functions."""

from darkroom.objectives.flow import (
    denoised,
    logit_normal_density,
    logit_normal_timestep,
    noisy_latents,
    shift_timestep,
    training_timestep,
    velocity_loss,
    velocity_target,
)
from darkroom.objectives.schedules import learning_rate

__all__ = [
    "denoised",
    "learning_rate",
    "logit_normal_density",
    "logit_normal_timestep",
    "noisy_latents",
    "shift_timestep",
    "training_timestep",
    "velocity_loss",
    "velocity_target",
]
