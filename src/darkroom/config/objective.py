"""What a training minimises: `train.objective` of a run."""

from typing import Literal

from pydantic import Field, model_validator

from darkroom.settings.base import Section


class Objective(Section):
    """What the model predicts, how noise is added to latents, which noise is trained on, and how it counts."""

    prediction: Literal["flow", "v", "epsilon", "x0"] = Field(
        "flow", description="what the model's output is"
    )
    schedule: Literal["flow", "scaled_linear", "linear", "cosine"] = Field(
        "flow", description="flow: rectified flow; scaled_linear: Stable Diffusion's; linear: DDPM's; cosine"
    )
    zero_terminal_snr: bool = Field(False, description="rescale the schedule so that it ends in pure noise")
    num_timesteps: int = Field(1000, ge=2, description="of the schedule; flow is continuous")
    beta_start: float = Field(0.00085, gt=0, lt=1, description="first beta of scaled_linear and linear")
    beta_end: float = Field(0.012, gt=0, lt=1, description="last beta of scaled_linear and linear")
    timestep_density: Literal["logit_normal", "uniform", "mode", "cosmap", "log_normal"] | None = Field(
        None, description="how often each timestep is trained on; null: logit_normal for flow, else uniform"
    )
    mode_scale: float = Field(1.29, ge=-1, le=1.75, description="of the density `mode`; above 0: the middle")
    weighting: Literal["none", "min_snr", "min_snr_plus_one", "soft_min_snr"] = Field(
        "none",
        description="weight of the noise levels, declared in x0 space; none: plain error of the output",
    )
    min_snr_gamma: float = Field(5.0, gt=0, description="greatest x0-space weight of min_snr and its kin")
    weight_floor: float = Field(0.0, ge=0, description="least x0-space weight of min_snr and its kin")
    shift_base_px: int = Field(
        0,
        ge=0,
        description="side at which timestep_shift holds; other buckets shift by their side; 0: all alike",
    )

    @model_validator(mode="after")
    def _flow_or_diffusion(self) -> "Objective":
        if (self.prediction == "flow") != (self.schedule == "flow"):
            wanted = (
                "schedule: flow, or prediction: v"
                if self.prediction == "flow"
                else "schedule: scaled_linear, or prediction: flow"
            )
            raise ValueError(
                f"prediction {self.prediction} does not go with schedule {self.schedule}; write {wanted}"
            )
        if self.schedule == "flow" and self.zero_terminal_snr:
            raise ValueError(
                "zero_terminal_snr is for diffusion schedules; flow ends in pure noise; leave it out"
            )
        if self.beta_start >= self.beta_end:
            raise ValueError(f"beta_start {self.beta_start:g} is not below beta_end {self.beta_end:g}")
        return self

    @model_validator(mode="after")
    def _terminal_steps(self) -> "Objective":
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "zero_terminal_snr ends in pure noise, from which epsilon tells nothing of the picture; "
                "write prediction: v"
            )
        vanishing = self.weighting in ("min_snr", "soft_min_snr") and self.weight_floor == 0
        if self.zero_terminal_snr and vanishing:
            raise ValueError(
                f"weighting {self.weighting} gives the terminal steps of zero_terminal_snr no weight: what is "
                "above sigma 29 gets about 0.01 % of the loss; write weight_floor: 1.0 beside it, or weighting: "
                "min_snr_plus_one, or weighting: none"
            )
        return self

    @model_validator(mode="after")
    def _log_normal(self) -> "Objective":
        if self.zero_terminal_snr and self.timestep_density == "log_normal":
            raise ValueError(
                "timestep_density log_normal never draws the pure noise of zero_terminal_snr; "
                "write timestep_density: uniform"
            )
        return self

    @model_validator(mode="after")
    def _floor(self) -> "Objective":
        if self.weight_floor and self.weighting == "none":
            raise ValueError("weight_floor needs a weighting; write weighting: min_snr, or leave it out")
        if self.weight_floor and self.prediction == "epsilon":
            raise ValueError(
                "weight_floor grows without bound with the noise for epsilon; write prediction: v, or leave it out"
            )
        if self.weight_floor > self.min_snr_gamma:
            raise ValueError(
                f"weight_floor {self.weight_floor:g} is above min_snr_gamma {self.min_snr_gamma:g}"
            )
        return self

    @property
    def density(self) -> Literal["logit_normal", "uniform", "mode", "cosmap", "log_normal"]:
        """The timestep density, chosen by the schedule where the configuration leaves it open."""
        return self.timestep_density or ("logit_normal" if self.schedule == "flow" else "uniform")
