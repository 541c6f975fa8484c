"""What is minimised: predictions, noise levels, densities, weights and learning rates, as small pure functions."""

from darkroom.objectives.algebra import (
    NoiseLevel,
    Prediction,
    coefficients,
    convert,
    determinant,
    input_scale,
    latents_and_noise,
    noisy,
    target,
)
from darkroom.objectives.densities import (
    cosmap_density,
    cosmap_timestep,
    draw_timestep,
    logit_normal_density,
    logit_normal_timestep,
    mode_timestep,
    uniform,
)
from darkroom.objectives.flow import (
    flow_level,
    resolution_shift,
    shift_timestep,
)
from darkroom.objectives.noise_tables import (
    INFERENCE_INFINITY,
    beta_table,
    betas_of,
    inference_timesteps,
    scale_sigma,
    sigma_table,
    zero_terminal_snr,
)
from darkroom.objectives.prior import prior_weights
from darkroom.objectives.schedules import half_life_steps, learning_rate
from darkroom.objectives.training import TrainingObjective, noise_table
from darkroom.objectives.weighting import BAND_EDGES, band_shares, prediction_weight, x0_weight

__all__ = [
    "BAND_EDGES",
    "INFERENCE_INFINITY",
    "NoiseLevel",
    "Prediction",
    "TrainingObjective",
    "band_shares",
    "beta_table",
    "betas_of",
    "coefficients",
    "convert",
    "cosmap_density",
    "cosmap_timestep",
    "determinant",
    "draw_timestep",
    "flow_level",
    "half_life_steps",
    "inference_timesteps",
    "input_scale",
    "latents_and_noise",
    "learning_rate",
    "logit_normal_density",
    "logit_normal_timestep",
    "mode_timestep",
    "noise_table",
    "noisy",
    "prediction_weight",
    "prior_weights",
    "resolution_shift",
    "scale_sigma",
    "shift_timestep",
    "sigma_table",
    "target",
    "uniform",
    "x0_weight",
    "zero_terminal_snr",
]
