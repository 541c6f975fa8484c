"""`kind: classes`: a folder for each class, as ImageNet and torchvision's ImageFolder have it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from darkroom.settings.json_texts import read_json
from darkroom.settings.paths import local_path
from darkroom.sources.files import FilesSection, Folder, Folders, Listing, Row


class ClassesSource(FilesSection):
    """A folder for each class, whose pictures have the class's prompt."""

    kind: Literal["classes"]
    folder: str = Field(description="holds a folder for each class; as `folder` of `pictures`")
    prompts: str | None = Field(
        None, description="JSON file: class's folder -> prompt; null: the folder's name, _ being a space"
    )


def _rows_in(source: ClassesSource, folder: Folder) -> Listing:
    """Every picture with its class's prompt."""
    prompts = _read_prompts(source)
    rows = []
    for name in folder.pictures:
        class_name, _, rest = name.partition("/")
        if not rest:
            raise ValueError(
                f"{folder.path}: {name} lies in no class; put it into a folder named as its class"
            )
        if prompts is not None and class_name not in prompts:
            raise ValueError(f"source.prompts: {source.prompts} has no prompt for the class {class_name}")
        rows.append(Row(name, [class_name.replace("_", " ") if prompts is None else prompts[class_name]]))
    return Listing(rows, len(folder.names) - len(rows))


def _read_prompts(source: ClassesSource) -> dict[str, str] | None:
    if source.prompts is None:
        return None
    try:
        path = local_path(source.prompts)
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")  # reading a named pipe would never end
        prompts = read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"source.prompts: {source.prompts} cannot be read as JSON ({error})") from None
    texts = isinstance(prompts, dict) and all(isinstance(p, str) and p.strip() for p in prompts.values())
    if not texts:
        raise ValueError(f"source.prompts: {source.prompts} should map each class's folder to a prompt")
    return dict(prompts)


def _reads(source: ClassesSource) -> list[Path]:
    """The file of prompts; a variable that is not set is told when it is read."""
    try:
        return [] if source.prompts is None else [local_path(source.prompts)]
    except ValueError:
        return []


FOLDERS: Folders[ClassesSource] = Folders(lambda source: {"": ("folder", source.folder)}, _rows_in, _reads)
SPEC = FOLDERS.spec("classes", ClassesSource)
