"""The files that a path of the configuration means: one, those of a folder, or those of a pattern."""

import glob
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.settings.paths import expanded
from darkroom.sources.remote import RemoteFile, is_remote, remote_files

File = Path | RemoteFile

PATH = (
    "a folder, or a pattern with *, ** and {00..99}; relative to the project's root, or starting with a variable"
    " of the environment: $NAME/..."
)


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What files a source is made of.

    Args:
        what: what they are called, e.g. "list".
        endings: of their names.
        is_one: whether a file is such a one.
    """

    what: str
    endings: Sequence[str]
    is_one: Callable[[File], bool]


def named_lists(text: str, wanted: Wanted) -> tuple[dict[str, File], int]:
    """As `named_files`, also of addresses such as s3://."""
    address = _expanded_text(text)
    if not is_remote(address):
        return dict(named_files(text, wanted)[0]), named_files(text, wanted)[1]
    try:
        found = [file for pattern in _without_braces(address, text) for file in remote_files(pattern)]
    except ValueError as error:
        raise ValueError(f"source.path: {error}") from None
    files = {file.below: file for file in found if wanted.is_one(file)}
    if not files:
        raise ValueError(f"source.path: {text} leads to no {wanted.what} ({', '.join(wanted.endings)})")
    return dict(files), len(found) - len(files)


def named_files(text: str, wanted: Wanted) -> tuple[dict[str, Path], int]:
    """Path below the folder that `text` means -> file, sorted, and how many others lie in that folder.

    Raises:
        ValueError: there is none, or one that is named is no such file.
    """
    path = Path(_expanded_text(text))
    if is_remote(_expanded_text(text)):
        raise ValueError(f"source.path: {text}: a {wanted.what} is read from this machine; copy or mount it")
    endings = ", ".join(wanted.endings)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file, path))
        files = {file.relative_to(path).as_posix(): file for file in found if wanted.is_one(file)}
        if not files:
            links = (
                f"; its {num} links to folders are not followed: name those"
                if (num := _num_links(path))
                else ""
            )
            raise ValueError(f"source.path: {text} holds no {wanted.what} ({endings}){links}")
        return files, len(found) - len(files)
    root, named = _expanded(path, text)
    for file in named:
        if not wanted.is_one(file):
            raise ValueError(f"source.path: {file} is no {wanted.what}; its name should end in {endings}")
    if not named:
        raise ValueError(
            f"source.path: no file {text}; it should be a {wanted.what} ({endings}), a folder of them, or a"
            f" pattern such as {wanted.what}s/*{wanted.endings[0]}"
        )
    return {file.relative_to(root).as_posix(): file for file in named}, 0


def tell_what_is_left_out(texts: Sequence[str], what: str, num_others: int) -> None:
    """Tell the log how many files are none of what is wanted, and how many links in folders are not followed."""
    named = ", ".join(texts)
    if num_others:
        _log.info("urls: %d files of %s are no %s, and are left out", num_others, named, what)
    addresses = (address for address in map(_expanded_text, texts) if not is_remote(address))
    if num_links := sum(_num_links(path) for path in map(Path, addresses) if path.is_dir()):
        _log.warning(
            "urls: %d links in %s lead to folders, or nowhere, and are not followed", num_links, named
        )


def _num_links(folder: Path) -> int:
    """How many links below a folder lead to folders, which `rglob` does not follow, or nowhere."""
    links = (path for path in folder.rglob("*") if path.is_symlink() and not path.is_file())
    return sum(not _hidden(link, folder) for link in links)


def _expanded(path: Path, text: str) -> tuple[Path, list[Path]]:
    """The folder of a pattern's fixed parts, and the files that it means.

    Raises:
        ValueError: one of {a,b} is not there.
    """
    if path.is_file():
        return path.parent, [path]
    fixed = next((i for i, part in enumerate(path.parts) if set(part) & set("*?[{")), len(path.parts) - 1)
    patterns = _without_braces(str(path), text)
    named: dict[Path, None] = {}
    for pattern in patterns:
        literal = Path(pattern)
        found = [literal] if literal.exists() else sorted(map(Path, glob.glob(pattern, recursive=True)))
        files = [file for file in found if file.is_file()]
        if not files and len(patterns) > 1:
            raise ValueError(f"source.path: no file {pattern}, which {text} names")
        named |= dict.fromkeys(files)
    return Path(*path.parts[:fixed]), list(named)


def _expanded_text(text: str) -> str:
    try:
        return expanded(text)
    except ValueError as error:
        raise ValueError(f"source.path: {error}") from None


def _without_braces(pattern: str, text: str) -> list[str]:
    """One pattern for each of {a,b} and {00..99}."""
    import braceexpand

    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise ValueError(f"source.path: {text}: {error}") from None


def _hidden(file: Path, folder: Path) -> bool:
    """Names that begin with a dot or, as Spark's and Hadoop's own files do, with _."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
