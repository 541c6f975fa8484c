"""Folders of pictures as a dataset's list: every picture and every caption is one row.

A row's URL is `local:` and the file's path below its folder, percent-encoded; DreamBooth's two folders are
told apart by a first part, `instance` or `class`. So a list, and the uids made from it, tell nothing of the
machine.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import polars as pl

from darkroom.config.dataset import ClassesSource, DreamBoothSource, PicturesSource
from darkroom.config.paths import local_path
from darkroom.download.read_in import CAPTION_ENDING
from darkroom.store import read_table, sha256_json

FolderSource = PicturesSource | DreamBoothSource | ClassesSource

SCHEME = "local:"
INSTANCE, CLASS = "instance", "class"
# What people keep pictures as. Those that are not decoded end as unsupported_image, and are counted.
PICTURE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".jxl")
)
_MAX_CAPTION_BYTES = 65_536


@dataclass(frozen=True)
class Listing:
    """What lies in a source's folders: rows of (url, caption), and how many files are neither."""

    rows: list[tuple[str, str | None]]
    num_others: int


def folders_of(source: FolderSource) -> dict[str, Path]:
    """First part of the rows' paths -> folder. One folder has the first part "".

    Raises:
        ValueError: a folder does not exist, or its environment variable is not set.
    """
    if isinstance(source, DreamBoothSource):
        named = {INSTANCE: ("instance_folder", source.instance_folder)}
        if source.class_folder is not None:
            named[CLASS] = ("class_folder", source.class_folder)
    else:
        named = {"": ("folder", source.folder)}
    found = {}
    for first, (key, text) in named.items():
        try:
            path = local_path(text)
        except ValueError as error:
            raise ValueError(f"source.{key}: {error}") from None
        if not path.is_dir():
            raise ValueError(f"source.{key}: no folder {text}; it should hold pictures")
        found[first] = path
    return found


def count_folder_rows(source: FolderSource) -> int:
    """How many rows a source has; its captions are not read.

    Raises:
        ValueError: see `list_folders`.
    """
    return len(list_folders(source, read_captions=False).rows)


def state_of_folders(source: FolderSource) -> str:
    """A digest that changes when a file of the source is added, removed or written again."""
    files = [
        (first, name, os.stat(folder / name, follow_symlinks=False))
        for first, folder in folders_of(source).items()
        for name in _files(folder)
    ]
    return sha256_json([(first, name, stat.st_size, stat.st_mtime_ns) for first, name, stat in files])


def list_folders(source: FolderSource, read_captions: bool = True) -> Listing:
    """Every picture and caption of a source, sorted by path.

    A picture that lacks its caption has the caption null, and a caption that lacks its picture is a row with
    the path of the .txt: the download stage gives both a status. Names that start with a dot are passed over.

    Raises:
        ValueError: a folder is missing or holds no picture, no picture has a caption, two pictures share a
            caption, or a class has no prompt; names the folder or file, and what would be right.
    """
    rows: list[tuple[str, str | None]] = []
    num_others = 0
    for first, folder in folders_of(source).items():
        names = list(_files(folder))
        pictures = [name for name in names if _ending(name) in PICTURE_ENDINGS]
        if not pictures:
            raise ValueError(f"{folder}: holds no picture ({', '.join(sorted(PICTURE_ENDINGS))})")
        if isinstance(source, PicturesSource):
            texts = [name for name in names if _ending(name) == CAPTION_ENDING]
            told = _captioned(folder, pictures, texts, read_captions)
            num_others += len(names) - len(pictures) - len(texts)
        else:
            told = list(_prompted(source, first, folder, pictures))
            num_others += len(names) - len(pictures)
        prefix = f"{first}/" if first else ""
        rows += [(SCHEME + quote(prefix + name), caption) for name, caption in told]
    return Listing(sorted(rows), num_others)


def path_of(url: str, folders: Mapping[str, Path]) -> tuple[Path, Path]:
    """(folder, file) of a row's URL, from `folders_of`; the file is not looked at."""
    name = unquote(url.removeprefix(SCHEME))
    if "" in folders:
        return folders[""], folders[""] / name
    first, _, rest = name.partition("/")
    return folders[first], folders[first] / rest


def prior_uids(tables: list[str | Path]) -> list[str]:
    """The uids of DreamBooth's class pictures, sorted, from the dataset's download tables."""
    is_class = pl.col("url").str.starts_with(f"{SCHEME}{CLASS}/") & (pl.col("status") == "ok")
    found = [read_table(path, ["uid", "url", "status"]).filter(is_class)["uid"] for path in tables]
    return sorted(pl.concat(found).to_list())


def _files(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, with / between parts, sorted; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(root).relative_to(folder)
        for name in sorted(names):
            if not name.startswith("."):
                yield (below / name).as_posix()


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _captioned(
    folder: Path, pictures: list[str], texts: list[str], read_captions: bool
) -> list[tuple[str, str | None]]:
    """(path, caption) of every picture, and of every caption without one."""
    captions = {os.path.splitext(name)[0]: name for name in texts}
    owners: dict[str, str] = {}
    rows: list[tuple[str, str | None]] = []
    for name in pictures:
        stem = os.path.splitext(name)[0]
        if owners.setdefault(stem, name) != name:
            raise ValueError(f"{folder}: {owners[stem]} and {name} share the caption {stem}.txt; rename one")
        caption = captions.get(stem)
        rows.append((name, _read_caption(folder / caption) if caption and read_captions else None))
    if not set(owners) & set(captions):
        raise ValueError(
            f"{folder}: no picture has a caption; the one of {pictures[0]} should be in"
            f" {os.path.splitext(pictures[0])[0]}.txt"
        )
    return rows + [(name, None) for stem, name in captions.items() if stem not in owners]


def _read_caption(path: Path) -> str | None:
    """The words of a caption file on one line; None if it holds none, or is no text in UTF-8."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CAPTION_BYTES + 1)
        text = " ".join(content.decode("utf-8-sig").split())
    except (OSError, UnicodeDecodeError):
        return None
    return text if text and len(content) <= _MAX_CAPTION_BYTES else None


def _prompted(
    source: DreamBoothSource | ClassesSource, first: str, folder: Path, pictures: list[str]
) -> Iterator[tuple[str, str]]:
    """(path, prompt): one prompt a folder, or one a class."""
    if isinstance(source, DreamBoothSource):
        prompt = source.instance_prompt if first == INSTANCE else source.class_prompt
        assert prompt is not None, "DreamBoothSource holds that a class folder has its prompt"
        for name in pictures:
            yield name, prompt
        return
    prompts = _read_prompts(source)
    for name in pictures:
        class_name, _, rest = name.partition("/")
        if not rest:
            raise ValueError(f"{folder}: {name} lies in no class; put it into a folder named as its class")
        if prompts is not None and class_name not in prompts:
            raise ValueError(f"source.prompts: {source.prompts} has no prompt for the class {class_name}")
        yield name, class_name.replace("_", " ") if prompts is None else prompts[class_name]


def _read_prompts(source: ClassesSource) -> dict[str, str] | None:
    if source.prompts is None:
        return None
    try:
        prompts = json.loads(local_path(source.prompts).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"source.prompts: {source.prompts} cannot be read as JSON ({error})") from None
    texts = isinstance(prompts, dict) and all(isinstance(p, str) and p.strip() for p in prompts.values())
    if not texts:
        raise ValueError(f"source.prompts: {source.prompts} should map each class's folder to a prompt")
    return dict(prompts)
