"""Reading `config/autoencoders/NAME.yaml`, and what its stages are made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.autoencoder import VERSION
from darkroom.components.base import Component, named_components
from darkroom.config.autoencoder import Autoencoder
from darkroom.config.component_files import component_files, read_json_file
from darkroom.config.load import (
    ConfigError,
    check_component_name,
    load_components,
    read_dataset,
    read_layers,
    validated,
)
from darkroom.config.sizes import vae_factor
from darkroom.store.digest import in_key_order

# What the training is made from. The rest of the file is the comparison's, with what both of them need.
_OF_TRAINING = ("dataset", "seed", "crop_px", "initial", "network", "loss", "train", "shift", "held_out")
_OF_COMPARISON = ("dataset", "crop_px", "loss", "held_out", "reference")


@dataclass(frozen=True)
class AutoencoderProject:
    """An autoencoder with the components that it names."""

    name: str
    autoencoder: Autoencoder
    components: dict[str, Component]

    def component_names(self, stage: str) -> list[str]:
        """The components that a stage uses, sorted."""
        keys = {"train": ("initial", "loss"), "compare": ("loss", "reference")}[stage]
        named = named_components(self.autoencoder)
        return sorted({found.name for found in named if found.key.partition(".")[0] in keys})

    def settings(self, stage: str) -> dict[str, Any]:
        """What `train` or `compare` is made from besides its inputs, as plain values for its manifest."""
        values = self.autoencoder.model_dump(mode="json")
        keys = {"train": _OF_TRAINING, "compare": _OF_COMPARISON}[stage]
        components = {
            name: self.components[name].model_dump(mode="json") for name in self.component_names(stage)
        }
        told = {key: values[key] for key in keys}
        if stage == "compare":
            told["loss"] = {"perceptual": values["loss"]["perceptual"]}
        else:
            # How many of them it is judged by is the comparison's.
            told["held_out"] = {"share": values["held_out"]["share"]}
        return in_key_order({**told, "components": components, "version": VERSION})


def load_autoencoder(
    name: str, root: str | Path = ".", config: str | Path | None = None
) -> AutoencoderProject:
    """Load autoencoder `name` from the folder `config`, by default `root`/config, with its components.

    Raises:
        ConfigError: a file, key, value or name is wrong.
    """
    folder = Path(root) / "config" if config is None else Path(config)
    layers = read_layers(folder / "autoencoders", name, "autoencoder")
    found = validated(Autoencoder, layers)
    read_dataset(folder, found.dataset, f"{layers[-1].path}: dataset")
    components = load_components(folder / "components.yaml")
    for named in named_components(found):
        check_component_name(components, named, layers)
    if found.reference == name:
        raise ConfigError(f"{layers[-1].path}: reference: {name} is its own name; name another VAE")
    try:
        _check_sizes(found, components, Path(root))
    except ValueError as error:
        raise ConfigError(f"{layers[-1].path}: {error}") from None
    return AutoencoderProject(name, found, components)


def _check_sizes(autoencoder: Autoencoder, components: dict[str, Component], root: Path) -> None:
    """Refuse a crop that one of the autoencoders does not take."""
    factors = {f"reference {autoencoder.reference}": vae_factor(components[autoencoder.reference], root)}
    if autoencoder.network is not None:
        factors["network"] = 2 ** (len(autoencoder.network.block_out_channels) - 1)
    elif autoencoder.initial is not None:
        initial = components[autoencoder.initial]
        factors[f"initial {autoencoder.initial}"] = vae_factor(initial, root)
        told = read_json_file(component_files(initial, root) / "config.json") or {}
        if (kind := told.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
            raise ValueError(
                f"initial: {autoencoder.initial} is a {kind}; name an AutoencoderKL, or write network"
            )
    for what, factor in factors.items():
        if autoencoder.crop_px % factor:
            near = max(factor, round(autoencoder.crop_px / factor) * factor)
            raise ValueError(
                f"crop_px: {autoencoder.crop_px} is no multiple of {factor}, the pixels a latent of the {what};"
                f" write {near}"
            )
