"""What the tests of families share: a cache of small pictures with small encoders, and trained models of it."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from test_cache import make, write_part
from test_components import write_vae
from tiny_encoders import (
    CLIP_TOKENS,
    component,
    write_clip_text,
    write_gemma,
    write_modernbert,
    write_t5,
)

from darkroom.cache.fingerprint import expected_fingerprint
from darkroom.cache.stage import cache_null
from darkroom.config.model import read_model
from darkroom.config.run import Cache, Train
from darkroom.families.table import FAMILIES
from darkroom.models.families import build_denoiser
from darkroom.models.training_components import TrainingComponents
from darkroom.train.inputs import SampleFiles, TrainInputs
from darkroom.train.stage import TrainOutputs, train

DIFFUSION = {"prediction": "v", "schedule": "scaled_linear", "zero_terminal_snr": True}
CLIP = {"max_tokens": CLIP_TOKENS, "padded": True}
LORA = {"rank": 2, "alpha": 4.0}
TEXT_DIMS = {"plain": 16, "clip-l": 16, "clip-g": 12, "t5": 32, "gemma": 16, "modernbert": 24}


@dataclass(frozen=True)
class FamilyCases:
    """A family as `tests/test_family_NAME.py` tells the tests that all families share.

    encoders: `cache.text_encoders`, of those of `world`.
    cases: name -> model section, and what stock diffusers loads the result with; the plain one has the
        family's name.
    again: options by which activations are computed again in the backward pass.
    call: by case, what the pipeline's call takes besides what all take.
    """

    encoders: list[dict[str, Any]]
    cases: dict[str, tuple[dict[str, Any], str]]
    again: list[str]
    call: dict[str, dict[str, Any]] = field(default_factory=dict)


def encoders_of(family):
    """Its `cache.text_encoders`."""
    from family_cases import ENCODERS  # made from the modules that import this one

    return ENCODERS[family]


def build(family, **section):
    """A small network of a family, as its cache would have it."""
    dims = tuple(TEXT_DIMS[use["name"]] for use in encoders_of(family))
    sizes = {"latent_channels": 4, "text_dim": dims if len(dims) > 1 else dims[0], "pooled_dim": 20}
    return build_denoiser(read_model({"family": family, **section}), sizes, seed=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A part of pictures, and the components by name."""
    folder = tmp_path_factory.mktemp("world")
    write_part(folder)
    encoders = {
        "plain": write_clip_text(folder / "plain", 16, None),
        "clip-l": write_clip_text(folder / "clip-l", 16, 8),
        "clip-g": write_clip_text(folder / "clip-g", 12, 12, seed=4),
        "t5": write_t5(folder / "t5", 32),
        "gemma": write_gemma(folder / "gemma", 16),
        "modernbert": write_modernbert(folder / "modernbert", 24),
    }
    components = {name: component(path) for name, path in encoders.items()}
    components["vae"] = component(write_vae(folder / "vae"), "vae")
    return SimpleNamespace(folder=folder, components=components, caches={})


def cached(world, family):
    """The cache of a family's encoders, made once: what `train` takes first, and the parts."""
    if family not in world.caches:
        settings = Cache(
            vae="vae",
            text_encoders=encoders_of(family),
            size_conditioning=True,
            batch_size=4,
            dtype="float32",
        )
        vae, encoders = world.components["vae"], [world.components[u.name] for u in settings.encoders]
        make(world.folder, (vae, encoders), settings, out=f"cache-{family}")
        null = world.folder / f"null-{family}.safetensors"
        cache_null(settings, encoders, null)
        shard = world.folder / f"cache-{family}.safetensors"
        expected = expected_fingerprint(settings, vae, encoders)
        world.caches[family] = (
            ([(shard, shard.with_suffix(".parquet"))], null, expected),
            TrainingComponents(settings, vae, encoders),
        )
    return world.caches[family]


def settings_of(family, **changes):
    objective = DIFFUSION if FAMILIES[family].objective == "diffusion" else {}
    num = len(encoders_of(family))
    values = {
        "num_steps": 3, "global_batch_size": 4, "microbatch_size": 4, "learning_rate": 1e-2, "dtype": "float32",
        "encoder_dropout": [0.3] * num, "objective": objective, "num_threads": 1, "log_every_steps": 3,
    }  # fmt: skip
    return Train(**{**values, **changes})


def outputs_in(folder):
    names = ("run", "model", "untrained", "history.parquet")
    return TrainOutputs(*(folder / name for name in names))


@pytest.fixture(scope="module")
def trained(world):
    """`trained(case)`: the folder of a case after three steps; trained once."""
    done = {}

    def get(case):
        if case not in done:
            from family_cases import CASES

            family, section, _ = CASES[case]
            inputs, parts = cached(world, family)
            folder = world.folder / case
            lines = []
            model = read_model({"family": family, **section})
            training = TrainInputs(SampleFiles(*inputs), parts, model, settings_of(family), 3)
            train(training, outputs_in(folder), log=lines.append)
            done[case] = SimpleNamespace(folder=folder, lines=lines, parts=parts, model=model)
        return done[case]

    return get
