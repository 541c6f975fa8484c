"""What is here of one stage of a run: its results, the copies that Git tracks, and what dvc.lock holds of it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from darkroom.config import Project
from darkroom.publish.dvclock import Content, Held
from darkroom.publish.stages import out_names, stage_name
from darkroom.publish.tracked import copied_names, copies_folder
from darkroom.stages import manifest_path
from darkroom.store import Checked, check_stage, read_stage_manifest
from darkroom.store.checks import MANIFEST
from darkroom.store.found import Digests, described, digests, entries, kind_of, shown


@dataclass
class Looked:
    """One stage of a run, as it was found.

    Attributes:
        project, stage: the phase and the stage.
        name: DVC's name of it.
        checked: its results.
        copy: the manifest that Git tracks; its `body` is None where there is none.
        copies: the digests of all copies that Git tracks, by file.
        held: what dvc.lock holds; None where it holds nothing, or the run is not published.
        wrong: what is wrong with it.
    """

    project: Project
    stage: str
    name: str
    checked: Checked
    copy: Checked
    copies: dict[str, Digests]
    held: Held | None = None
    wrong: list[str] = field(default_factory=list)

    @property
    def manifest(self) -> Checked:
        """The manifest to go by: that of the results, and without them the copy."""
        return self.copy if self.checked.body is None else self.checked

    @property
    def body(self) -> dict[str, Any]:
        """Its content; {} where there is no manifest."""
        return self.manifest.body or {}

    @cached_property
    def out_contents(self) -> dict[str, Content]:
        """What DVC would record of the results that are here whole: path -> content."""
        found, files = {}, self.checked.files
        named = {**self.body.get("parts", {}), **self.body.get("files", {})}
        for out in out_names(self.stage):
            inside = {
                name.removeprefix(f"{out}/"): f for name, f in files.items() if name.startswith(f"{out}/")
            }
            path = str(self.checked.path.parent / out)
            if out in files:
                found[path] = Content.of_file(files[out])
            elif inside and all(name in files for name in named if name.startswith(f"{out}/")):
                found[path] = Content.of_folder(inside)
        return found


def look(project: Project, stage: str, held: Held | None) -> Looked:
    """Read all that is here of a stage."""
    name, path = stage_name(project, stage), manifest_path(project, stage)
    checked = check_stage(path, out_names(stage) if held is not None else ())
    folder = copies_folder(name)
    copy, copies, wrong = Checked(folder / MANIFEST), {}, []
    for file, kind in sorted(entries(folder).items()):
        if kind != "file":
            wrong.append(f"{shown(folder / file)}: {described(folder / file)}, which is no published file")
        elif file not in copied_names(stage):
            wrong.append(f"{shown(folder / file)}: no file of the published result")
        else:
            try:
                copies[file] = digests(folder / file, with_md5=True)
            except OSError as error:
                wrong.append(f"{shown(folder / file)}: cannot be read ({error.strerror})")
    if MANIFEST in copies:
        read_stage_manifest(copy)
    if kind_of(folder) not in (None, "folder"):
        wrong.append(f"{shown(folder)}: {described(folder)}, where a folder should be")
    missing = _missing_in_between(checked, stage)
    return Looked(
        project, stage, name, checked, copy, copies, held, [*checked.wrong, *missing, *copy.wrong, *wrong]
    )


def _missing_in_between(checked: Checked, stage: str) -> list[str]:
    """Files that are not here though others are, which `dvc pull` would not bring: somebody removed them."""
    if checked.body is None:
        return []
    outs = out_names(stage)
    absent = set(checked.absent)
    more = [
        name
        for key in ("parts", "files", "pages")
        for name in checked.body.get(key, {})
        if not any(name == out or name.startswith(f"{out}/") for out in outs)
    ]
    if absent.issuperset(more):
        return []
    folder: Path = checked.path.parent
    return [
        f"{shown(folder / name)}: missing, though others of the stage's files are here"
        for name in checked.absent
    ]
