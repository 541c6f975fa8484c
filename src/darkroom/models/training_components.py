"""The pretrained components of a training, by what they are for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darkroom.components.base import Component
from darkroom.config.run import Cache
from darkroom.families.base import ModelSection


@dataclass(frozen=True)
class TrainingComponents:
    """What a training takes from elsewhere.

    cache: the section that says how the text encoders are read. text_encoders: those of cache.encoders, in
    order. pretrained: the model to go on from.
    """

    cache: Cache
    vae: Component
    text_encoders: Sequence[Component]
    pretrained: Component | None = None

    @classmethod
    def from_config(
        cls, cache: Cache, model: ModelSection, components: Mapping[str, Component]
    ) -> "TrainingComponents":
        """The components that the configuration names."""
        return cls(
            cache,
            components[cache.vae],
            [components[use.name] for use in cache.encoders],
            components[model.pretrained] if model.pretrained else None,
        )
