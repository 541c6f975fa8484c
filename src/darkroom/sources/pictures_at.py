"""Pictures that nobody has described, as a source: which kind it is, what lies there tells."""

from collections.abc import Iterable
from pathlib import Path

from darkroom.settings.paths import local_path
from darkroom.sources.base import SourceSection
from darkroom.sources.files import PICTURE_ENDINGS
from darkroom.sources.folder import PicturesSource
from darkroom.sources.tables_of_pictures import PictureTableSource
from darkroom.sources.tars import WebDatasetSource


def pictures_at(text: str) -> SourceSection:
    """A source of the pictures of a folder, or of tars or Parquet tables: a file, a folder or a pattern.

    Raises:
        ValueError: there are none.
    """
    path = local_path(text)
    names: Iterable[str] = [text]
    if path.is_dir():
        names = (file.name for file in path.rglob("*") if not file.name.startswith("."))
    kinds = {Path(name).suffix.lower() for name in names}
    if path.is_dir() and kinds & PICTURE_ENDINGS:
        return PicturesSource(kind="pictures", folder=text, uncaptioned="keep")
    if ".tar" in kinds:
        return WebDatasetSource(kind="webdataset", path=text, uncaptioned="keep")
    if ".parquet" in kinds:
        return PictureTableSource(kind="tables_of_pictures", path=text, uncaptioned="keep")
    what = (
        "holds neither pictures nor tars nor Parquet tables"
        if path.is_dir()
        else "is no folder, tar or Parquet table"
    )
    raise ValueError(f"{text} {what}; it should lead to the pictures of a set")
