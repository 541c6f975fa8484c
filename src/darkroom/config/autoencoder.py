"""What an autoencoder is: `config/autoencoders/NAME.yaml`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from darkroom.components.base import ComponentOf
from darkroom.config.run import Train
from darkroom.perceptual.base import PerceptualSection
from darkroom.perceptual.table import PERCEPTUAL
from darkroom.settings.base import Section
from darkroom.settings.unions import one_of

if TYPE_CHECKING:
    AnyPerceptual = PerceptualSection
else:
    AnyPerceptual = one_of({name: spec.section for name, spec in PERCEPTUAL.items()})


class Network(Section):
    """The layers of a new AutoencoderKL, by diffusers' names; each level but the last halves both sides."""

    block_out_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (128, 256, 512, 512), min_length=1, description="channels of each level, from the picture's on"
    )
    layers_per_block: int = Field(2, ge=1, description="residual blocks of each level")
    latent_channels: int = Field(4, ge=1, description="channels of the latents")
    norm_num_groups: int = Field(32, ge=1, description="groups of the group norms; divides all channels")
    mid_block_add_attention: bool = Field(
        True, description="attention between the latents' places, in the middle"
    )
    use_quant_conv: bool = Field(True, description="a convolution of 1 x 1 behind the encoder")
    use_post_quant_conv: bool = Field(True, description="and one before the decoder")

    @model_validator(mode="after")
    def _groups(self) -> "Network":
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups {self.norm_num_groups} does not divide the {channels} of block_out_channels"
                )
        return self

    def arguments(self) -> dict[str, Any]:
        """What diffusers' AutoencoderKL takes."""
        num = len(self.block_out_channels)
        return {
            **self.model_dump(),
            "down_block_types": ("DownEncoderBlock2D",) * num,
            "up_block_types": ("UpDecoderBlock2D",) * num,
        }


class Adversarial(Section):
    """A discriminator that tells pictures from reconstructions, patch by patch, and is trained beside."""

    weight: float = Field(
        0.5, gt=0, description="share of the adversarial gradient's length in the reconstruction's"
    )
    start_step: int = Field(0, ge=0, description="steps without it, so that it meets pictures and not blur")
    num_layers: int = Field(
        3, ge=1, description="convolutions that halve the picture; more see larger patches"
    )
    num_channels: int = Field(
        64, ge=1, description="of its first layer; each next one has twice as many, up to 8 times"
    )
    learning_rate: float | None = Field(None, gt=0, description="null: AdamW's of `train`")


class Loss(Section):
    """What is minimised: each a mean over pictures."""

    reconstruction: Literal["l1", "l2"] = Field(
        "l1", description="mean absolute or squared error of all numbers"
    )
    kl_weight: float = Field(
        1e-6,
        ge=0,
        description="of the KL divergence from the standard normal, in nats a number of the picture",
    )
    perceptual: AnyPerceptual | None = Field(None, description="a distance in a network's layers; null: none")
    adversarial: Adversarial | None = Field(None, description="null: none")


class AutoencoderTrain(Section):
    """How it is trained; the options of a run's `train` of the same names."""

    num_steps: int = Field(ge=1, description="optimizer steps")
    batch_size: int = Field(ge=1, description="pictures an optimizer step")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for the inner convolutions, AdamW for the rest"
    )
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's, after the warm-up")
    muon_learning_rate: float = Field(0.008, gt=0, description="Muon's, after the warm-up")
    betas: tuple[float, float] = Field((0.5, 0.9), description="AdamW's betas")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    learning_rate_decay: Literal["cosine", "constant", "linear"] = Field(
        "constant", description="after the warm-up: down to 0, or constant"
    )
    num_warmup_steps: int = Field(0, ge=0, description="steps from 0 to the learning rate; below num_steps")
    ema_decay: float = Field(0.999, ge=0, lt=1)
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="autocast; auto is bfloat16 where that is fast, else float32; weights are float32"
    )
    num_threads: int = Field(0, ge=0, description="CPU threads; 0 leaves it to torch")
    checkpoint_every_steps: int = Field(500, ge=1)
    log_every_steps: int = Field(50, ge=1)

    @model_validator(mode="after")
    def _as_in_a_run(self) -> "AutoencoderTrain":
        try:
            self.as_train()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    def as_train(self) -> Train:
        """The same as a run's section, for what trainings have in common."""
        size = self.batch_size
        values = self.model_dump(exclude={"batch_size"})
        return Train(**values, global_batch_size=size, microbatch_size=size)


class HeldOut(Section):
    """Pictures that it never learns from, by their uids: other settings hold out the same ones."""

    share: float = Field(0.05, gt=0, lt=1, description="of the kept pictures, about")
    max_pictures: int = Field(500, ge=1, description="so many of them it is judged by")


class Autoencoder(Section):
    """An autoencoder: `config/autoencoders/NAME.yaml`."""

    description: str = Field(description="one sentence")
    dataset: str = Field(
        description="name of a dataset in config/datasets, whose kept pictures it learns from"
    )
    seed: int = Field(0, ge=0, description="of the initial weights, the order of pictures, crops and noise")
    crop_px: int = Field(
        256, ge=8, description="pictures are resized until they cover a square of this side, which is cut out"
    )
    initial: Annotated[str | None, ComponentOf("vae")] = Field(
        None,
        description="name of a VAE in config/components.yaml to go on from; null: a new one, as network says",
    )
    network: Network | None = Field(None, description="of one from scratch; null with initial")
    loss: Loss = Loss()
    train: AutoencoderTrain
    shift: bool = Field(
        False, description="write shift_factor, the latents' mean, too; scaling_factor is always written"
    )
    held_out: HeldOut = HeldOut()
    reference: Annotated[str, ComponentOf("vae")] = Field(
        description="name of a VAE in config/components.yaml that it is compared with"
    )

    @model_validator(mode="after")
    def _begins_somewhere(self) -> "Autoencoder":
        if (self.initial is None) == (self.network is None):
            raise ValueError(
                "give either initial (a VAE to go on from) or network (the layers of a new one); one that extends"
                " another writes `network: null` or `initial: null` beside the other"
            )
        return self

    @model_validator(mode="after")
    def _starts_in_time(self) -> "Autoencoder":
        adversarial = self.loss.adversarial
        if adversarial is not None and adversarial.start_step >= self.train.num_steps:
            raise ValueError(
                f"loss.adversarial.start_step: {adversarial.start_step} is not before the end,"
                f" train.num_steps {self.train.num_steps}; write a smaller one, or adversarial: null"
            )
        return self
