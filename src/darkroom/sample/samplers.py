"""Samplers: small ones of our own (euler, heun, euler-stochastic), and diffusers' DDIM and DPM++.

All are diffusers schedulers, so that every pipeline draws with each of them. Ours work on what the model's output
stands for, x0 and e (`objectives.algebra`), and so are the same few lines for every prediction:

    Euler: z' = a' x0 + s' e. In flow that is z + (t' - t) v, in diffusion DDIM.
    Heun: the mean of two slopes dy / du, at both ends of the step; the last step is Euler's. In flow y = z, u = t
        and the slope is v = e - x0, in diffusion y = z / a, u = sigma and the slope is e (Karras et al.,
        arXiv 2206.00364, algorithm 1).
    Euler, stochastic (flow): the reverse SDE dz = (v - g^2 / 2 score) dt + g dw, score = -e / t. Noise without the
        score's term would widen whatever is drawn.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from darkroom.objectives.algebra import NoiseLevel, Prediction, latents_and_noise
from darkroom.objectives.flow import flow_level, shift_timestep
from darkroom.objectives.noise_tables import INFERENCE_INFINITY, inference_timesteps, sigma_table

OURS = ("euler", "heun", "euler-stochastic")
SAMPLERS = (*OURS, "ddim", "dpm++")
PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is a flow's: it has no betas, or predicts flow."""
    return "beta_start" not in config or config.get("prediction_type") == "flow_prediction"


def make_sampler(name: str, config: Mapping[str, Any]) -> Any:
    """The sampler of that name for a model whose scheduler has this config.

    Raises:
        ValueError: an unknown name, or one that does not fit the model; it says which would.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is none of {', '.join(SAMPLERS)}")
    flow = is_flow(config)
    if name == "ddim" and flow:
        raise ValueError("sampler ddim is for diffusion models; for this flow model it would be euler")
    if name == "euler-stochastic" and not flow:
        raise ValueError("sampler euler-stochastic is for flow models; write euler, heun, ddim or dpm++")
    if name == "ddim":
        return DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False)
    if name == "dpm++" and flow:
        return FlowDPMSolver(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=config.get("shift", 1.0),
            use_dynamic_shifting=config.get("use_dynamic_shifting", False),
        )
    if name == "dpm++":
        return DPMSolverMultistepScheduler.from_config(config, timestep_spacing="trailing")
    if flow:
        return OwnSampler(
            name,
            shift=config.get("shift", 1.0),
            use_dynamic_shifting=config.get("use_dynamic_shifting", False),
            use_flow_sigmas=True,
        )
    return OwnSampler(
        name,
        prediction=PREDICTIONS[config.get("prediction_type", "epsilon")],
        alphas_cumprod=DDIMScheduler.from_config(config).alphas_cumprod.tolist(),
    )


class FlowDPMSolver(DPMSolverMultistepScheduler):
    """diffusers' solver for pipelines that give a shift for every size, whether it is wanted or not."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        mu: float | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """As DPMSolverMultistepScheduler; mu counts where `use_dynamic_shifting` is on."""
        wanted = mu if self.config["use_dynamic_shifting"] else None
        super().set_timesteps(num_inference_steps, device, wanted, timesteps)  # type: ignore[arg-type]


class Evaluation(NamedTuple):
    """One call of the model: in the step from level `start` to `start + 1`, at its beginning or at its end."""

    start: int
    at_end: bool


class OwnSampler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """euler, heun or euler-stochastic behind the interface of a diffusers scheduler.

    Args:
        method: one of `OURS`.
        prediction: what the model's output is.
        shift: of the timesteps, for flow.
        alphas_cumprod: the noise table of a diffusion model; None is flow.
        num_train_timesteps: what timesteps are counted in.
        use_dynamic_shifting: the shift is exp(mu) of the mu that a pipeline gives for a picture's size.
        use_flow_sigmas: tells pipelines of diffusers to leave the choice of timesteps to the sampler.

    `generators`: one for each picture, for the noise of euler-stochastic; None is torch's global one.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        method: str,
        prediction: Prediction = "flow",
        shift: float = 1.0,
        alphas_cumprod: Sequence[float] | None = None,
        num_train_timesteps: int = 1000,
        use_dynamic_shifting: bool = False,
        use_flow_sigmas: bool = False,
    ):
        self.method, self.prediction, self.shift = method, prediction, shift
        self.abar = None if alphas_cumprod is None else torch.tensor(alphas_cumprod, dtype=torch.float64)
        self.num_train_timesteps = num_train_timesteps
        self.generators: list[torch.Generator] | None = None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Pipelines begin at the first step, and say so."""
        assert begin_index == 0

    def set_timesteps(self, num_inference_steps: int, device: Any = None, mu: float | None = None) -> None:
        """Levels from pure noise to clean, and the timesteps at which the model is asked.

        mu: logarithm of the shift for a picture's size, where `use_dynamic_shifting` is on.
        """
        if self.abar is None:
            t = torch.linspace(1, 1 / num_inference_steps, num_inference_steps, dtype=torch.float64)
            is_given = mu is not None and self.config["use_dynamic_shifting"]
            level = flow_level(shift_timestep(t, math.exp(mu or 0) if is_given else self.shift))
            timesteps = (level.timestep * self.num_train_timesteps).float()
        else:
            timesteps = inference_timesteps(len(self.abar), num_inference_steps)
            # Pure noise has no z / a: a large sigma stands for it.
            sigma = sigma_table(self.abar, infinity=INFERENCE_INFINITY)[timesteps]
            signal = 1 / torch.hypot(sigma, torch.ones_like(sigma))
            level = NoiseLevel(signal, sigma * signal, timesteps / len(self.abar))
        clean = NoiseLevel(*(level.signal.new_tensor([end]) for end in (1.0, 0.0, 0.0)))
        self.levels = NoiseLevel(*(torch.cat(pair) for pair in zip(level, clean, strict=True)))
        self._evaluations = []
        for start in range(num_inference_steps):
            self._evaluations.append(Evaluation(start, False))
            if self.method == "heun" and start + 1 < num_inference_steps:
                self._evaluations.append(Evaluation(start, True))
        places = [evaluation.start + evaluation.at_end for evaluation in self._evaluations]
        self.timesteps = timesteps[places].to(device)
        self._done = 0
        self._first: tuple[Tensor, Tensor] | None = None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """z is what the model takes."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> tuple[Tensor]:
        """The latents after one more evaluation of the model, (B, ...), in a tuple."""
        evaluation = self._evaluations[self._done]
        self._done += 1
        z = sample.float()
        here = self._level(evaluation.start + evaluation.at_end, z)
        following = self._level(evaluation.start + 1, z)
        latents, noise = latents_and_noise(self.prediction, model_output.float(), z, here)
        slope = noise - latents if self.abar is None else noise
        if evaluation.at_end:
            assert self._first is not None
            start, first_slope = self._first
            before = self._level(evaluation.start, z)
            length = self._place(following) - self._place(before)
            y = self._scale(before) * start + length * (first_slope + slope) / 2
            return (self._typed(y / self._scale(following), sample),)
        self._first = (z, slope)
        moved = following.signal * latents + following.noise * noise
        is_last = evaluation.start + 2 == len(self.levels.noise)
        if self.method == "euler-stochastic" and not is_last:
            moved = moved + self._diffusion(noise, here, following, generator or self.generators)
        return (self._typed(moved, sample),)

    def _diffusion(self, noise: Tensor, here: NoiseLevel, following: NoiseLevel, generator: Any) -> Tensor:
        """g^2 / 2 score dt + g sqrt(dt) n with g = t (1 - t) / (1 - t + 0.008), that of Stable Diffusion 3 From
        Scratch."""
        t, dt = here.noise, here.noise - following.noise
        g = t * (1 - t) / (1 - t + 0.008)
        fresh = randn_tensor(tuple(noise.shape), generator, noise.device, noise.dtype)
        return g * dt.sqrt() * fresh - g.square() / 2 * noise / t * dt

    def _level(self, place: int, like: Tensor) -> NoiseLevel:
        return NoiseLevel(*(part[place].to(like) for part in self.levels))

    def _place(self, level: NoiseLevel) -> Tensor:
        """u of the slope dy / du."""
        return level.noise if self.abar is None else level.sigma

    def _scale(self, level: NoiseLevel) -> Tensor:
        """y / z."""
        return torch.ones_like(level.signal) if self.abar is None else 1 / level.signal

    @staticmethod
    def _typed(latents: Tensor, sample: Tensor) -> Tensor:
        return latents.to(sample.dtype)
