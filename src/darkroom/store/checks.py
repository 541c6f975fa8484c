"""A stage's folder compared with its manifest: every file that it names, and nothing that it does not."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.store.atomic import UNFINISHED, json_text
from darkroom.store.digest import sha256_json
from darkroom.store.found import (
    Digests,
    Kind,
    NotPlain,
    described,
    digests,
    entries,
    is_snakemakes_mark,
    kind_of,
    read_bytes,
    shown,
)
from darkroom.store.manifest import JUDGES

MANIFEST = "manifest.json"
# Far more than a stage of a million parts needs.
_MAX_BYTES = 1 << 30
_STAGE_KEYS = {"stage": str, "params": dict, "upstream": dict, "parts": dict, "files": dict, "counts": dict}
_PART_KEYS = {"settings": str, "files": dict, "counts": dict}
# Of a stage that has such: pages that tell times, by their digest without these.
PAGES = "pages"
_MORE = (PAGES, JUDGES)
# A path below the manifest's folder, or a file beside that folder.
_NAME = re.compile(r"(\.\./)?(?!\.{1,2}(/|$))[^/\0]+(/(?!\.{1,2}(/|$))[^/\0]+)*")


@dataclass
class Checked:
    """What lies in a stage's folder.

    Attributes:
        path: where the stage's manifest lies, or should.
        body: the manifest; None where there is none that can be read.
        digests: of the manifest's own bytes.
        files: every file that was read and is as it was, by its path from the folder.
        parts: name -> part manifest, of those that are as they were.
        num_named: files and folders that the manifest names.
        absent: those of them that are not here.
        wrong: a sentence for everything that is not as the manifest says.
    """

    path: Path
    body: dict[str, Any] | None = None
    digests: Digests | None = None
    files: dict[str, Digests] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_named: int = 0
    absent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def check_stage(path: str | Path, with_md5: Sequence[str] = ()) -> Checked:
    """Compare all that lies in a manifest's folder with the manifest; whole files are read, in pieces.

    What a manifest says of its stage's settings and of the stages above is not looked at, and pages only for
    being there. `with_md5` are files and folders, by their path from the manifest's folder, whose files get both
    digests.
    """
    found = Checked(Path(path))
    folder = found.path.parent
    if kind_of(folder) is None:
        return found
    if kind_of(folder) != "folder":
        found.wrong.append(f"{shown(folder)}: {described(folder)}, where the stage's folder should be")
        return found
    try:
        here = entries(folder)
    except OSError as error:
        found.wrong.append(_why(error, folder))
        return found
    if MANIFEST in here:
        read_stage_manifest(found)
    elif here:
        found.wrong.append(
            f"{shown(path)}: missing, though {len(here)} files and folders of the stage lie there"
        )
    if found.body is not None:
        _Comparison(found, here, tuple(with_md5)).run()
    return found


def read_stage_manifest(found: Checked) -> None:
    """Read the manifest at `found.path`, which may lie apart from the stage's files, as a copy does."""
    try:
        found.digests = digests(found.path, with_md5=True)
        found.body = _parse(found.path, _STAGE_KEYS)
    except (ValueError, OSError) as error:
        found.wrong.append(_why(error, found.path))
        return
    names = _named(found.body)
    found.num_named = len(names)
    strange = [name for name in names if not _NAME.fullmatch(name)]
    if strange:
        found.body = None
        found.wrong.append(f"{shown(found.path)}: names {strange[0]!r}, which is no file of the stage")


def read_part_manifest(path: Path) -> dict[str, Any]:
    """The manifest of one part, or of one scorer or metric.

    Raises:
        ValueError: it cannot be read, or is none.
    """
    try:
        return _parse(path, _PART_KEYS)
    except OSError as error:
        raise ValueError(_why(error, path)) from None


def _parse(path: Path, keys: Mapping[str, type]) -> dict[str, Any]:
    """A manifest's content.

    Raises:
        ValueError, OSError: it cannot be read, has other keys, or is written otherwise than darkroom writes it: a
            key that stands twice, for instance, which readers understand differently.
    """
    data = read_bytes(path, _MAX_BYTES)
    try:
        text = data.decode()
        body = json.loads(text)
        is_ours = json_text(body) == text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: no manifest ({error})") from None
    if not isinstance(body, dict) or not keys.keys() <= body.keys() <= {*keys, *_MORE}:
        raise ValueError(f"{shown(path)}: no manifest, which has the keys {', '.join(keys)}")
    for key, value in body.items():
        if not isinstance(value, keys.get(key, dict)):
            raise ValueError(f"{shown(path)}: {key} is {value!r:.40}, which no manifest says")
    digests_of_names = [*body.get("parts", {}).items(), *body["files"].items(), *body.get(PAGES, {}).items()]
    if len(_named(body)) < len(digests_of_names) or not all(isinstance(d, str) for _, d in digests_of_names):
        raise ValueError(f"{shown(path)}: names a file twice, or without its digest")
    if not is_ours:
        raise ValueError(f"{shown(path)}: not written as darkroom writes manifests, so it was edited")
    return body


def _named(body: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> digest, of everything that a manifest names."""
    return {**body.get("parts", {}), **body["files"], **body.get(PAGES, {})}


class _Comparison:
    """One stage's folder against its manifest."""

    def __init__(self, found: Checked, here: dict[str, Kind], with_md5: tuple[str, ...]) -> None:
        assert found.body is not None
        self.found, self.here, self.body = found, here, found.body
        self.folder = found.path.parent
        self.with_md5 = with_md5
        # Folders with something in them.
        self.full = _folders_of(name for name, kind in here.items() if kind != "folder")
        # What was looked at; the rest of the folder is nothing that the manifest names.
        self.seen = {MANIFEST}

    def run(self) -> None:
        if MANIFEST in self.with_md5 and self.found.digests is not None:
            self.found.files[MANIFEST] = self.found.digests
        pages = self.body.get(PAGES, {})
        for name, digest in _named(self.body).items():
            kind = kind_of(self.folder / name) if name.startswith("../") else self.here.get(name)
            if kind is None:
                self.found.absent.append(name)
                continue
            self.seen.add(name)
            if kind == "folder" and name not in pages:
                self._folder(name, digest)
            else:
                self._file(name, None if name in pages else digest)
        for name in self.body["parts"]:
            if name in self.found.files:
                self._part(name)
        self._rest()

    def _file(self, name: str, digest: str | None) -> None:
        read = self._read(name)
        if read is not None and digest is not None and read.sha256 != digest:
            self._changed(name)
        elif read is not None:
            self.found.files[name] = read

    def _folder(self, name: str, digest: str) -> None:
        """As `sha256_folder` defines it, with everything that it passes over refused."""
        below = {path: kind for path, kind in self.here.items() if path.startswith(f"{name}/")}
        self.seen |= below.keys()
        visible: dict[str, Digests] = {}
        num_wrong = len(self.found.wrong)
        for path, kind in below.items():
            inside = path.removeprefix(f"{name}/")
            if kind == "folder" and path in self.full:
                continue
            if kind == "file" and not any(piece.startswith(".") for piece in inside.split("/")):
                read = self._read(path)
                if read is not None:
                    visible[inside] = read
            elif kind != "file" or not is_snakemakes_mark(self.folder / path):
                self._extra(path, kind)
        if len(self.found.wrong) > num_wrong:
            return
        if sha256_json({inside: read.sha256 for inside, read in visible.items()}) != digest:
            self._changed(name)
        else:
            self.found.files |= {f"{name}/{inside}": read for inside, read in visible.items()}

    def _part(self, name: str) -> None:
        """A part's manifest tells of files as the stage's own does, and of what the part was made with."""
        try:
            part = read_part_manifest(self.folder / name)
        except ValueError as error:
            self.found.wrong.append(str(error))
            return
        if part["settings"] != sha256_json(self.body["params"]):
            self._wrong(name, f"was made with other settings than {shown(self.found.path)} records")
        elif not part["files"].items() <= self.body["files"].items():
            self._wrong(name, f"names files that {shown(self.found.path)} does not, or others of that name")
        else:
            self.found.parts[name] = part

    def _rest(self) -> None:
        """Whatever else lies there; folders that only hold what is named are no files."""
        above = _folders_of(self.seen)
        for name, kind in sorted(self.here.items()):
            if name not in self.seen and not (kind == "folder" and name in above):
                self._extra(name, kind)

    def _extra(self, name: str, kind: Kind) -> None:
        path = self.folder / name
        if kind == "file" and UNFINISHED.fullmatch(path.name):
            self._wrong(name, "left by a job that was killed, or none of the stage's files; remove it")
        elif kind == "file":
            self._wrong(name, f"no file of the stage: {shown(self.found.path)} does not name it")
        elif kind == "folder":
            self._wrong(name, f"no folder of the stage: {shown(self.found.path)} names nothing in it")
        else:
            self._wrong(name, f"{described(path)}, which no stage leaves")

    def _read(self, name: str) -> Digests | None:
        path = self.folder / name
        md5 = any(name == out or name.startswith(f"{out}/") for out in self.with_md5)
        try:
            return digests(path, md5)
        except (NotPlain, OSError) as error:
            self.found.wrong.append(_why(error, path))
            return None

    def _changed(self, name: str) -> None:
        self._wrong(name, f"changed since {shown(self.found.path)} was written")

    def _wrong(self, name: str, what: str) -> None:
        self.found.wrong.append(f"{shown(self.folder / name)}: {what}")


def _folders_of(names: Iterable[str]) -> set[str]:
    """Every folder above some paths."""
    return {name[:i] for name in names for i, sign in enumerate(name) if sign == "/"}


def _why(error: Exception, path: Path) -> str:
    if isinstance(error, OSError):
        return f"{shown(path)}: cannot be read ({error.strerror})"
    return str(error)
