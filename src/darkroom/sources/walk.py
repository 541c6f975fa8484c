"""The files of a folder, and what its links lead to."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Found:
    """What lies below a folder, as paths below it, sorted, with / between parts.

    Attributes:
        names: files, and links to files.
        folder_links: links to folders whose files are not among `names`.
        outside: of `names`, links that lead out of the folder; empty where links are followed.
        num_followed: links to files and folders that were followed.
    """

    names: list[str] = field(default_factory=list)
    folder_links: list[str] = field(default_factory=list)
    outside: set[str] = field(default_factory=set)
    num_followed: int = 0


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Also of a link that leads to itself, which is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def find_files(folder: Path, follow_links: bool) -> Found:
    """Every file below a folder but those whose names, or whose folders' names, begin with a dot.

    A link to one of the folders that it lies in is never followed.
    """
    found, root = Found(), Path(os.path.realpath(folder))

    def look(below: str, inside: tuple[str, ...]) -> None:
        with os.scandir(folder / below) as entries:
            named = sorted(entries, key=lambda entry: entry.name)
        for entry in named:
            if entry.name.startswith("."):
                continue
            name, is_link = f"{below}{entry.name}", entry.is_symlink()
            if not _is_folder(entry):
                found.names.append(name)
                if is_link and follow_links:
                    found.num_followed += 1
                elif is_link and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                    found.outside.add(name)
                continue
            real = os.path.realpath(entry.path) if is_link else f"{inside[-1]}/{entry.name}"
            if is_link and (not follow_links or real in inside):
                found.folder_links.append(name)
                continue
            found.num_followed += is_link
            look(f"{name}/", (*inside, real))

    look("", (str(root),))
    return found
