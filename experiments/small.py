"""What the experiments share: a cache in memory, and a training of minutes, by the library's own objects."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.text import TextEncoder
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import encode_latents, load_vae
from darkroom.config.run import Sampling, TextEncoderUse, Train
from darkroom.families.conditioning import Conditioning
from darkroom.metrics.intervals import bootstrap, bounds
from darkroom.models.denoiser import Denoiser
from darkroom.sample.model import SampleModel
from darkroom.sample.options import DrawOptions
from darkroom.settings.captions import ORIGINAL
from darkroom.train.data import NULL_CAPTION, Samples
from darkroom.train.plan import Shape, UInts
from darkroom.train.tags import ShownTags
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

COMPONENTS = Path(__file__).parents[1] / "src/darkroom_demo/components"


def demo_vae() -> Any:
    """The demo's VAE."""
    return load_vae(Component(kind="vae", path=str(COMPONENTS / "vae")))


def demo_text_encoder() -> TextEncoder:
    """The text tower of the demo's CLIP: 32 tokens."""
    return load_text_encoder(Component(kind="text_encoder", path=str(COMPONENTS / "clip")))


@dataclass(frozen=True)
class Text:
    """Captions as text encoders give them, padded: states (N, L, D) of each, pooled (N, P) of all."""

    states: tuple[Tensor, ...]
    pooled: Tensor


def encode(captions: list[str], encoders: Sequence[tuple[TextEncoder, TextEncoderUse]]) -> Text:
    """Every caption once, however often it is there."""
    unique = sorted(set(captions))
    places = [unique.index(caption) for caption in captions]
    read = [encoder.read(unique, use) for encoder, use in encoders]
    states = tuple(torch.stack([caption.hidden for caption in found])[places] for found in read)
    pooled = torch.cat([torch.stack([c.pooled for c in found]) for found in read], dim=1)
    return Text(states, pooled[places])


class MemoryCache:
    """Pictures of one size and a caption for each, encoded once: a `train.data.SampleSource` in memory.

    Args:
        pictures: uint8 (N, H, W, 3). captions: N of them.
        encoders: the text encoders, each with how it is read (padded).
    """

    def __init__(
        self,
        pictures: np.ndarray,
        captions: list[str],
        vae: Any,
        encoders: Sequence[tuple[TextEncoder, TextEncoderUse]],
    ) -> None:
        num, height, width, _ = pictures.shape
        self.captions = (ORIGINAL,)
        self.bucket = (width, height)
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        with torch.no_grad():
            parts = [encode_latents(vae, part.float() / 127.5 - 1) for part in pixels.split(64)]
        self.latents = torch.cat(parts)
        # The empty caption comes last.
        self.text = encode([*captions, ""], encoders)
        self._uids = {self.bucket: np.stack([np.zeros(num), np.arange(num)], axis=1).astype(np.uint64)}

    @property
    def uids(self) -> dict[Shape, UInts]:
        """The pictures' uids (N, 2): their numbers."""
        return self._uids

    @property
    def sizes(self) -> dict[str, Any]:
        """What `build_denoiser` needs."""
        dims = tuple(states.shape[-1] for states in self.text.states)
        return {
            "latent_channels": self.latents.shape[1],
            "text_dim": dims[0] if len(dims) == 1 else dims,
            "pooled_dim": self.text.pooled.shape[1],
        }

    def latent_shape(self, bucket: Shape) -> tuple[int, ...]:
        """(C, H, W) of the latents."""
        return tuple(self.latents.shape[1:])

    def gather(
        self, bucket: Shape, places: np.ndarray, captions: np.ndarray, tags: ShownTags | None = None
    ) -> Samples:
        """Pictures `places` (B,), with their caption or, at NULL_CAPTION, the empty one."""
        text = np.where(captions == NULL_CAPTION, len(self.latents), places)
        conditioning = Conditioning(
            tuple(states[text] for states in self.text.states),
            (None,) * len(self.text.states),
            self.text.pooled[text],
        )
        return Samples(self.latents[places], conditioning)


def train(
    denoiser: Denoiser, cache: MemoryCache, settings: Train, seed: int, priors: np.ndarray | None = None
) -> Denoiser:
    """Train in place; returns the moving average of the weights. priors: uids of DreamBooth's class pictures."""
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    training = Training(cache, denoiser.train(), average, settings, seed, priors)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(training, TrainingRun(folder)).train()
    return average


def draw(pipeline: Any, prompts: list[str], seeds: list[int], sampling: Sampling) -> np.ndarray:
    """One picture for each prompt and seed: uint8 (N, height, width, 3)."""
    return SampleModel(pipeline).draw(prompts, seeds, DrawOptions(sampling, batch_size=16))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of values (N,), by bootstrap over them."""
    found = bounds({"mean": bootstrap(["one"] * len(values), values, 2000, 0)["micro"]})
    return found["mean_low"], found["mean_high"]
