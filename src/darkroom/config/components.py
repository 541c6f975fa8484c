"""Pretrained components by name: VAEs, text encoders, CLIPs, captioners and models to go on from."""

from typing import Literal

from pydantic import Field, RootModel

from darkroom.config.base import Section


class Component(Section):
    """A pretrained component: a folder on this machine, or a Hugging Face repository."""

    kind: Literal["vae", "text_encoder", "clip", "captioner", "model"]
    path: str = Field(
        description="folder relative to the project's root or to a variable of the environment ($NAME/...),"
        " or a repository's name"
    )
    revision: str | None = Field(None, description="commit of the repository")
    subfolder: str | None = Field(None, description="folder inside the repository")


class Components(RootModel[dict[str, Component]]):
    """`config/components.yaml`: name -> component."""
