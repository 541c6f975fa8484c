"""What a run is: dataset, buckets, cache, model, training, pictures, metrics and evaluation."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from darkroom.components.base import ComponentOf
from darkroom.components.use import TextEncoderUse
from darkroom.config.bucket import Bucket
from darkroom.config.compiling import check_attention_compiles
from darkroom.config.drawing import Draw, Evaluate, Measure, Sampling
from darkroom.config.families import check_base, check_dropout, check_dtype, check_family
from darkroom.config.model import Model
from darkroom.config.objective import Objective
from darkroom.config.post_hoc_ema import PostHocEma, check_post_hoc_ema
from darkroom.config.shares import DatasetShare, check_shares
from darkroom.config.validation import Validation
from darkroom.config.watch import Watch, check_watch
from darkroom.settings.base import ADDED, Section
from darkroom.settings.unions import one_of
from darkroom.trackers.base import TrackerSection
from darkroom.trackers.table import TRACKERS


class Cache(Section):
    """Latents and text embeddings, encoded once, or during training."""

    vae: Annotated[str, ComponentOf("vae")] = Field(description="name of a VAE in config/components.yaml")
    text_encoder: Annotated[str | None, ComponentOf("text_encoder")] = Field(
        None, description="name of a CLIP text encoder in config/components.yaml, where one is enough"
    )
    max_text_tokens: int = Field(77, ge=2, description="longer captions are cut, and counted")
    text_encoders: Annotated[tuple[TextEncoderUse, ...], ADDED] = Field(
        (), description="any number of them, in this order, instead of text_encoder and max_text_tokens"
    )
    size_conditioning: Annotated[bool, ADDED] = Field(
        False, description="keep each picture's original size and crop, for unet-sdxl"
    )
    online: Annotated[bool, ADDED] = Field(
        False, description="store no latents and embeddings: training encodes every batch, from the tars"
    )
    batch_size: int = Field(32, ge=1, description="pictures or captions a forward pass")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float16", description="stored precision")

    @model_validator(mode="after")
    def _one_form(self) -> "Cache":
        if (self.text_encoder is None) == (not self.text_encoders):
            raise ValueError(
                "give either text_encoder (one) or text_encoders (a list); a run that extends another"
                " one writes `text_encoder: null` beside its list"
            )
        names = [encoder.name for encoder in self.text_encoders]
        if len(set(names)) < len(names):
            raise ValueError(f"text_encoders names one twice: {', '.join(names)}")
        return self

    @property
    def encoders(self) -> tuple[TextEncoderUse, ...]:
        """The text encoders in order; `text_encoder` is a list of one, read as SD3 reads a CLIP."""
        if self.text_encoder is None:
            return self.text_encoders
        return (
            TextEncoderUse(
                name=self.text_encoder, hidden_layer=-2, max_tokens=self.max_text_tokens, pooled=True
            ),
        )


class Tags(Section):
    """Captions that are lists of tags: shuffled, and some tags left out, each time that a picture is shown."""

    captions: tuple[str, ...] = Field(
        ("original",), min_length=1, description="names of captions that are tags"
    )
    separator: str = Field(",", min_length=1, description="what stands between two tags")
    keep_first: int = Field(0, ge=0, description="so many tags stay in front, in their order, and always")
    shuffle: bool = Field(True, description="the others come in another order each time")
    dropout: float = Field(0.0, ge=0, lt=1, description="how often each of the others is left out")

    @model_validator(mode="after")
    def _does_something(self) -> "Tags":
        if not self.shuffle and not self.dropout:
            raise ValueError("shuffle: false and dropout: 0 show every tag in its place; leave tags out")
        return self


_HALF = ("bfloat16", "float16", "bf16", "fp16", "half")


class Train(Section):
    """Training: the objective, the optimizer, what is shown and what is kept."""

    initial_run: Annotated[str | None, ADDED] = Field(
        None, description="name of a run to go on from, at a smaller or equal resolution: the phase before"
    )
    carry_optimizer: Annotated[bool, ADDED] = Field(
        True, description="with initial_run: take over the optimizer's moments too, not the weights alone"
    )
    num_steps: int = Field(ge=1, description="optimizer steps")
    global_batch_size: int = Field(ge=1, description="pictures an optimizer step, over all ranks")
    microbatch_size: int = Field(ge=1, description="pictures a forward pass on one rank, at most")
    parallelism: Annotated[Literal["ddp", "fsdp"], ADDED] = Field(
        "ddp", description="on several ranks: the whole model on each, or (FSDP2) a shard of it"
    )
    shard_size: Annotated[int, ADDED] = Field(
        0, ge=0, description="fsdp: so many neighbouring ranks share one copy of the model; 0 is all"
    )
    cpu_offload: Annotated[bool, ADDED] = Field(
        False,
        description="fsdp: keep shards, and run the optimizer, in CPU memory",
    )
    encoder_ranks: Annotated[int, ADDED] = Field(
        0,
        ge=0,
        description="so many of the ranks, the last ones, only encode for the others; needs cache.online",
    )
    optimizer: Literal["adamw", "muon", "adamw8bit", "prodigy", "schedulefree"] = Field(
        "adamw",
        description="muon: Muon for the matrices inside the blocks, AdamW for the rest; adamw8bit: AdamW with"
        " moments of 8 bits, by bitsandbytes; prodigy: AdamW that finds its own step size; schedulefree: AdamW"
        " that averages weights itself",
    )
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's, after the warm-up")
    muon_learning_rate: float = Field(0.02, gt=0, description="Muon's, after the warm-up")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's betas")
    epsilon: Annotated[float, ADDED] = Field(
        1e-8, gt=0, description="AdamW's, added to the root of the second moment"
    )
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    learning_rate_decay: Annotated[Literal["cosine", "constant", "linear"], ADDED] = Field(
        "cosine", description="after the warm-up: down to min_learning_rate, or constant"
    )
    num_decay_steps: Annotated[int | None, ADDED] = Field(
        None,
        ge=1,
        description="the decay takes the last so many steps, and the rate is constant before (warm-up, stable,"
        " decay); null: it begins after the warm-up",
    )
    num_warmup_steps: int = Field(0, ge=0, description="steps from 0 to the learning rate; below num_steps")
    warmup_shape: Annotated[Literal["linear", "cosine"], ADDED] = Field(
        "linear", description="how the warm-up rises"
    )
    min_learning_rate: float = Field(0.0, ge=0)
    objective: Annotated[Objective, ADDED] = Objective()
    logit_mean: float = Field(
        0.0, description="of the densities logit_normal and log_normal; above 0: more noise"
    )
    logit_std: float = Field(1.0, gt=0)
    timestep_shift: float = Field(
        1.0, gt=0, description="factor on every sigma: SD3's shift of the timesteps; 1 is none"
    )
    caption_choice: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None,
        description="name of a caption -> how often a picture is shown with it, drawn by sample and visit; null:"
        " equally often with each generated one, or with the original where there is none",
    )
    tags: Annotated[Tags | None, ADDED] = Field(
        None, description="which captions are lists of tags, and how they are shown; needs cache.online"
    )
    caption_dropout: float = Field(0.1, ge=0, le=1, description="share of empty captions, for guidance")
    encoder_dropout: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], ADDED] = Field(
        (), description="how often each text encoder alone sees no caption, in their order, besides"
    )
    prior_weight: Annotated[float | None, ADDED] = Field(
        None, gt=0, description="DreamBooth: weight of the loss on class pictures, half of every batch"
    )
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    post_hoc_ema: Annotated[PostHocEma | None, ADDED] = Field(
        None, description="averages to reconstruct others from when the training is over; null: none are kept"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="autocast; auto is bfloat16 where that is fast, else float32; weights are float32"
    )
    compile: Annotated[Literal["off", "auto", "on"], ADDED] = Field(
        "off",
        description="compile the network's blocks (torch.compile) before the first step; auto: where a GPU of"
        " compute capability 8.0 or more is",
    )
    parameter_dtype: Annotated[Literal["float32"], ADDED] = Field(
        "float32", description="of weights, moments and average; half precision would lose updates"
    )
    skip_steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], ADDED] = Field(
        (),
        description="steps to leave out, as the log numbers them: the way on after a loss that is not finite",
    )
    validation: Annotated[Validation | None, ADDED] = Field(
        None, description="pictures that are held out, and the loss on them on the way"
    )
    num_threads: int = Field(0, ge=0, description="CPU threads a rank; 0 leaves it to torch")
    checkpoint_every_steps: int = Field(500, ge=1)
    log_every_steps: int = Field(10, ge=1)
    sample_every_steps: int = Field(0, ge=0, description="pictures during training; 0 is never")
    sample_prompts: tuple[str, ...] = Field((), description="what those pictures show")
    sampling: Sampling = Sampling()

    @property
    def num_stable_steps(self) -> int | None:
        """Steps that are the same whatever num_steps is; None where every step's learning rate depends on it."""
        if self.learning_rate_decay == "constant":
            return self.num_steps
        return None if self.num_decay_steps is None else self.num_steps - self.num_decay_steps

    @field_validator("dtype", "parameter_dtype", mode="before")
    @classmethod
    def _precision(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name == "parameter_dtype" and value in _HALF:
            raise ValueError(
                f"weights in {value} lose their updates: bfloat16 rounds away what is below 1/512 of a weight,"
                " float16 below 1/4096, and AdamW's steps mostly are; leave parameter_dtype out and write dtype:"
                " bfloat16, which computes in bfloat16 on float32 weights"
            )
        if info.field_name == "dtype" and value in ("float16", "fp16", "half"):
            raise ValueError(
                f"{value} is not trained in: small gradients become 0 in float16, and weights stay float32 in any"
                " case; write dtype: auto, bfloat16 or float32"
            )
        return value

    @field_validator("caption_choice", mode="before")
    @classmethod
    def _shares(cls, choice: Any) -> Any:
        """Without what a run that extends another leaves out with null; Python counts with True."""
        if not isinstance(choice, dict):
            return choice
        for name, share in choice.items():
            if isinstance(share, bool):
                raise ValueError(f"{name} is {str(share).lower()}; it should be a number")
        return {name: share for name, share in choice.items() if share is not None}

    @field_validator("caption_choice")
    @classmethod
    def _sum(cls, choice: dict[str, float] | None) -> dict[str, float] | None:
        if choice is not None and abs(sum(choice.values()) - 1) > 1e-6:
            total = f"{' + '.join(choice) or 'nothing'} is {sum(choice.values()):g}"
            raise ValueError(
                f"{total}; it must be 1 (a run that extends another one leaves a caption out with null)"
            )
        return choice

    @model_validator(mode="after")
    def _prior(self) -> "Train":
        if self.prior_weight is not None and self.validation is not None:
            raise ValueError(
                "validation holds pictures out, and DreamBooth (prior_weight) has few of its subject; leave"
                " validation out, and judge by `measure`"
            )
        if self.prior_weight is not None and self.global_batch_size < 2:
            raise ValueError(
                "prior_weight needs pictures of the subject and of its class in every batch; write"
                " global_batch_size: 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _parallel(self) -> "Train":
        if self.shard_size and self.parallelism != "fsdp":
            raise ValueError("shard_size is fsdp's; write parallelism: fsdp beside it, or leave it out")
        if self.shard_size == 1:
            raise ValueError("shard_size 1 shards nothing; write parallelism: ddp, or shard_size: 2 or more")
        if self.cpu_offload and self.parallelism != "fsdp":
            raise ValueError(
                "cpu_offload brings shards to the GPU block by block, and ddp computes on whole models; write"
                " parallelism: fsdp beside it, or leave it out"
            )
        if self.parallelism == "fsdp" and self.compile != "off":
            raise ValueError(
                f"compile: {self.compile} compiles blocks with whole weights, and parallelism fsdp cuts them up;"
                " write compile: off, or parallelism: ddp"
            )
        if self.parallelism == "fsdp" and self.optimizer == "adamw8bit":
            raise ValueError(
                "optimizer adamw8bit scales moments by blocks of whole weights, and parallelism fsdp cuts them up;"
                " write optimizer: adamw, whose moments fsdp spreads over the ranks, or parallelism: ddp"
            )
        if self.parallelism == "fsdp" and self.optimizer == "prodigy":
            raise ValueError(
                "optimizer prodigy measures how far all weights have come, and parallelism fsdp cuts them up;"
                " write optimizer: adamw, or parallelism: ddp"
            )
        if self.parallelism == "fsdp" and self.optimizer == "muon":
            raise ValueError(
                "optimizer muon needs whole matrices, and parallelism fsdp cuts them up; write optimizer: adamw,"
                " or parallelism: ddp"
            )
        return self

    @model_validator(mode="after")
    def _schedule_free(self) -> "Train":
        if self.optimizer != "schedulefree":
            return self
        if self.learning_rate_decay != "constant":
            raise ValueError(
                "optimizer schedulefree needs no decay of the learning rate: its average takes that place; write"
                " learning_rate_decay: constant"
            )
        if self.ema_decay:
            raise ValueError(
                "optimizer schedulefree averages weights itself, and another average of them would lag; write"
                " ema_decay: 0"
            )
        if not self.betas[0]:
            raise ValueError("optimizer schedulefree averages with betas[0]; write one above 0, as 0.9")
        return self

    @model_validator(mode="after")
    def _rates(self) -> "Train":
        if self.skip_steps and max(self.skip_steps) > self.num_steps:
            raise ValueError(f"skip_steps: step {max(self.skip_steps)} is past num_steps {self.num_steps}")
        if self.num_warmup_steps >= self.num_steps:
            raise ValueError(
                f"num_warmup_steps {self.num_warmup_steps} must be below num_steps {self.num_steps}"
            )
        if self.learning_rate_decay == "constant" and self.min_learning_rate:
            raise ValueError(
                "learning_rate_decay constant has no end to fall to; leave min_learning_rate out"
            )
        if self.num_decay_steps is not None:
            if self.learning_rate_decay == "constant":
                raise ValueError("learning_rate_decay constant never decays; leave num_decay_steps out")
            if self.num_warmup_steps + self.num_decay_steps > self.num_steps:
                raise ValueError(
                    f"num_warmup_steps {self.num_warmup_steps} and num_decay_steps {self.num_decay_steps} are more"
                    f" than num_steps {self.num_steps}"
                )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}"
            )
        return self

    @model_validator(mode="after")
    def _averages(self) -> "Train":
        check_post_hoc_ema(self.post_hoc_ema, self.num_steps, self.optimizer)
        return self


if TYPE_CHECKING:
    AnyTracker = TrackerSection
else:
    AnyTracker = one_of({name: spec.section for name, spec in TRACKERS.items()})


class Run(Section):
    """A run: `config/runs/NAME.yaml`."""

    description: str = Field(description="one sentence for the report")
    dataset: str | None = Field(None, description="name of a dataset in config/datasets; or else datasets")
    datasets: Annotated[tuple[DatasetShare, ...], ADDED] = Field(
        (), description="several, each with its part of the samples, instead of dataset"
    )
    seed: int = Field(0, ge=0, description="of the batch plan, the noise and the initial weights")
    bucket: Bucket = Bucket()
    cache: Cache
    model: Model = Field(description="the network; `family` decides which of the tables below holds")
    train: Train
    draw: Draw = Field(description="the pictures that it is judged by")
    measure: Measure = Field(description="by metric, what is measured on them; a metric left out is not")
    evaluate: Evaluate = Field(Evaluate(), description="how sure scores are")
    watch: Annotated[Watch | None, ADDED] = Field(
        None, description="how the training is judged on the way, by jobs of their own"
    )
    trackers: Annotated[tuple[AnyTracker, ...], ADDED] = Field(
        (), description="where the training's curves go, besides TensorBoard; a change makes nothing again"
    )

    @model_validator(mode="after")
    def _names_datasets(self) -> "Run":
        check_shares(self.dataset, self.datasets)
        if len(self.datasets) == 1:
            # The same run, however it is written. Sections are frozen for everyone else.
            object.__setattr__(self, "dataset", self.datasets[0].name)
            object.__setattr__(self, "datasets", ())
        if self.datasets and self.train.prior_weight is not None:
            raise ValueError(
                "train.prior_weight: DreamBooth's class pictures are half of every batch, and a run on several"
                " datasets gives each its share; name one dataset, or leave this out"
            )
        return self

    @field_validator("trackers")
    @classmethod
    def _one_of_each_kind(cls, trackers: "tuple[AnyTracker, ...]") -> "tuple[AnyTracker, ...]":
        kinds = [tracker.kind for tracker in trackers]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"{twice[0]} is there twice; a training has one board of each kind")
        return trackers

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """The datasets, in the order of the configuration."""
        return (self.dataset,) if self.dataset is not None else tuple(share.name for share in self.datasets)

    @model_validator(mode="after")
    def _fits_together(self) -> "Run":
        if self.train.tags is not None and not self.cache.online:
            raise ValueError(
                "train.tags: shows a picture with another text each time, and the cache has one embedding of each"
                " caption; write cache: {online: true}, which encodes while training, or leave tags out"
            )
        if self.train.encoder_ranks and not self.cache.online:
            raise ValueError(
                f"train.encoder_ranks: {self.train.encoder_ranks} would encode what the cache has; write cache:"
                " {online: true}, or leave this out"
            )
        check_watch(self.watch, self.train.num_steps, self.measure, bool(self.datasets))
        check_dropout(self.train.encoder_dropout, self.cache.encoders)
        check_attention_compiles(self.train.compile, self.model.attention)
        check_dtype(self.model.attention, self.train.dtype)
        if self.model.lora is not None:
            check_base(self.model.lora.base_dtype, self.train.parallelism, self.train.compile)
        check_family(self.model, self.cache.text_encoders, self.cache.size_conditioning, self.train.objective)
        return self
