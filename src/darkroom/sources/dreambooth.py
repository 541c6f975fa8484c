"""`kind: dreambooth`: pictures of one subject, and others of its class (Ruiz et al. 2022, arXiv 2208.12242)."""

from typing import Literal

from pydantic import Field, model_validator

from darkroom.sources.base import CLASS
from darkroom.sources.files import FilesSection, Folder, Folders, Listing, Row

INSTANCE = "instance"


class DreamBoothSource(FilesSection):
    """Pictures of one subject with one prompt, and of its class with another (DreamBooth)."""

    kind: Literal["dreambooth"]
    instance_folder: str = Field(description="pictures of the subject; as `folder` of `pictures`")
    instance_prompt: str = Field(min_length=1, description="their caption, with a word for the subject")
    class_folder: str | None = Field(None, description="pictures of its class, for prior preservation")
    class_prompt: str | None = Field(None, min_length=1, description="their caption, without that word")

    @model_validator(mode="after")
    def _both_or_none(self) -> "DreamBoothSource":
        if (self.class_folder is None) != (self.class_prompt is None):
            missing = "class_prompt" if self.class_prompt is None else "class_folder"
            raise ValueError(f"{missing} is missing; give class_folder and class_prompt together, or neither")
        return self


def _named(source: DreamBoothSource) -> dict[str, tuple[str, str]]:
    named = {INSTANCE: ("instance_folder", source.instance_folder)}
    if source.class_folder is not None:
        named[CLASS] = ("class_folder", source.class_folder)
    return named


def _rows_in(source: DreamBoothSource, folder: Folder) -> Listing:
    """Every picture with its folder's prompt."""
    prompt = source.instance_prompt if folder.first == INSTANCE else source.class_prompt
    assert prompt is not None, "a class's folder has a prompt"
    rows = [Row(name, [prompt]) for name in folder.pictures]
    return Listing(rows, len(folder.names) - len(rows))


FOLDERS: Folders[DreamBoothSource] = Folders(_named, _rows_in)
SPEC = FOLDERS.spec(
    "dreambooth", DreamBoothSource, has_class_pictures=lambda source: source.class_folder is not None
)
