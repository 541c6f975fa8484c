"""The diffusers scheduler that an exported model carries: it says what was trained, so that any pipeline can draw.

Flow models get FlowMatchEulerDiscreteScheduler. Diffusion models get DDIMScheduler, whose last timestep is truly
pure noise with a zero terminal SNR; EulerDiscreteScheduler and DPMSolverMultistepScheduler are made from the same
keys (`from_config`), and put a large finite sigma there.
"""

from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from darkroom.objectives.flow import resolution_shift
from darkroom.objectives.noise_tables import betas_of
from darkroom.objectives.training import Settings, noise_table

SCHEDULES = {"scaled_linear": "scaled_linear", "linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
FLOW = "flow_prediction"  # DPMSolverMultistepScheduler's name; flow-matching schedulers have none


def make_scheduler(settings: Settings, num_pixels: float) -> Any:
    """The scheduler for a training's objective.

    A shift that depends on the resolution is fixed at that of `num_pixels`, because a scheduler knows one only.
    """
    wanted = settings.objective
    shift = resolution_shift(num_pixels, wanted.shift_base_px, settings.timestep_shift)
    if wanted.prediction == "flow" or wanted.schedule == "flow":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    shifted = betas_of(noise_table(settings, num_pixels)).tolist() if shift != 1 else None
    return DDIMScheduler(
        num_train_timesteps=wanted.num_timesteps,
        beta_start=wanted.beta_start,
        beta_end=wanted.beta_end,
        beta_schedule=SCHEDULES[wanted.schedule],
        trained_betas=shifted,
        prediction_type=PREDICTIONS[wanted.prediction],  # type: ignore[arg-type]
        rescale_betas_zero_snr=wanted.zero_terminal_snr,
        timestep_spacing="trailing",  # begins at the noisiest timestep
        steps_offset=1,
        clip_sample=False,
    )
