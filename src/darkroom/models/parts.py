"""The pretrained components of a run, by what they are for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darkroom.config.components import Component
from darkroom.config.model import AnyModel
from darkroom.config.run import Cache


@dataclass(frozen=True)
class Parts:
    """What a training takes from elsewhere.

    cache: the section that says how the text encoders are read. text_encoders: those of cache.encoders, in
    order. pretrained: the model to go on from.
    """

    cache: Cache
    vae: Component
    text_encoders: Sequence[Component]
    pretrained: Component | None = None

    @classmethod
    def named(cls, cache: Cache, model: AnyModel, components: Mapping[str, Component]) -> "Parts":
        """The components that the configuration names."""
        return cls(
            cache,
            components[cache.vae],
            [components[use.name] for use in cache.encoders],
            components[model.pretrained] if model.pretrained else None,
        )
