"""`kind: pictures`: a folder of pictures, with captions beside them, in a list, or without."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from darkroom.settings.download import CAPTION_ENDINGS
from darkroom.sources import metadata
from darkroom.sources.captions import CaptionedSection, read_captions
from darkroom.sources.files import FilesSection, Folder, Folders, Listing, Row, ending

if TYPE_CHECKING:
    import polars as pl


class PicturesSource(CaptionedSection, FilesSection):
    """A folder of pictures. Their captions are in files of the same name, or in a list as Hugging Face has it."""

    kind: Literal["pictures"]
    folder: str = Field(
        description="relative to the project's root, or starting with a variable of the environment: $NAME/..."
    )
    one_caption_a_line: bool = Field(
        False,
        description="each line of a .txt or .caption file is a caption of its own; else it is one caption",
    )


def _rows_in(source: PicturesSource, folder: Folder) -> Listing:
    """Every picture with its captions, and every caption and every row of a list that has no picture."""
    pictures, lists = folder.pictures, _lists(folder)
    told = _told(source, folder, lists)
    beside = _beside(folder)
    jsons = {stem_of(name): name for name in folder.names if ending(name) == ".json"}
    rows = []
    for name in pictures:
        file = beside.get(stem_of(name)) or jsons.get(stem_of(name))
        if name in told:
            rows.append(Row(name, told[name].captions, told[name].values))
        elif file is None or file in folder.found.outside:
            rows.append(Row(name))
        else:
            path = folder.path / file
            rows.append(Row(name, read_captions(path, source.one_caption_a_line, source.caption_key)))
    stems = set(map(stem_of, pictures))
    if pictures and source.drops_uncaptioned and not told and not stems & {*beside, *jsons}:
        raise ValueError(
            f"{folder.path}: no picture has a caption; the one of {pictures[0]} should be in"
            f" {stem_of(pictures[0])}.txt. `source.uncaptioned: keep` takes pictures without"
        )
    alone = [name for stem, name in beside.items() if stem not in stems]
    rows += map(Row, alone)
    rows += [Row(name, told[name].captions, told[name].values) for name in told.keys() - set(pictures)]
    known = {*pictures, *lists, *beside.values(), *(name for stem, name in jsons.items() if stem in stems)}
    return Listing(rows, len(folder.names) - len(known))


def _told(source: PicturesSource, folder: Folder, lists: Sequence[str]) -> dict[str, metadata.Told]:
    """Picture -> what the list that is nearest to it says of it."""
    types = _types(source, folder)
    told: dict[str, metadata.Told] = {}
    for name in lists:
        told |= metadata.read_list(folder.path / name, posixpath.dirname(name), source.caption_key, types)
    return told


def _types(source: PicturesSource, folder: Folder) -> "Mapping[str, pl.DataType]":
    """The columns of the outermost list."""
    lists = _lists(folder)
    return metadata.columns_of(folder.path / lists[0], source.caption_key) if lists else {}


def _lists(folder: Folder) -> list[str]:
    """The lists of captions in a folder, those of outer folders first.

    Raises:
        ValueError: two tell of one folder; or one leads out of the folder where links are not followed, or is no
            regular file, which the plan might wait for.
    """
    lists = metadata.lists_in(folder.names)
    for path, is_outside in ((folder.path / name, name in folder.found.outside) for name in lists):
        if is_outside:
            raise ValueError(
                f"{path}: is a link that leads out of the folder, which is not followed; copy the list into the"
                " folder, or write source.follow_links: true"
            )
        if not path.is_file():
            raise ValueError(f"{path}: is no regular file; it should be a list of the folder's pictures")
    return lists


def _beside(folder: Folder) -> dict[str, str]:
    """Path without ending -> the caption file of that name.

    Raises:
        ValueError: two files are the caption of one picture, or two pictures have one caption.
    """
    beside: dict[str, str] = {}
    for name in folder.names:
        if ending(name) in CAPTION_ENDINGS and beside.setdefault(stem_of(name), name) != name:
            stem = stem_of(name)
            raise ValueError(
                f"{folder.path}: {beside[stem]} and {name} are both the caption of {stem}; keep one"
            )
    owners: dict[str, str] = {}
    for name in folder.pictures:
        stem = stem_of(name)
        if owners.setdefault(stem, name) != name and stem in beside:
            raise ValueError(
                f"{folder.path}: {owners[stem]} and {name} share the caption {beside[stem]}; rename one"
            )
    return beside


def stem_of(name: str) -> str:
    """A path without its ending."""
    return os.path.splitext(name)[0]


FOLDERS: Folders[PicturesSource] = Folders(
    lambda source: {"": ("folder", source.folder)}, _rows_in, types=_types
)
SPEC = FOLDERS.spec("pictures", PicturesSource)
