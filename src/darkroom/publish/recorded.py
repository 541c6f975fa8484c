"""Which of a run's results `dvc.lock` does not hold yet, or holds as they were before."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from darkroom.config import Project
from darkroom.differences import differences
from darkroom.publish.dvclock import (
    Content,
    Held,
    read_cache_folder,
    read_lock,
    read_options,
    read_pipeline,
)
from darkroom.publish.listed import chain_of, phases
from darkroom.publish.stages import out_paths, stage_entries, stage_name
from darkroom.publish.tracked import outdated
from darkroom.stages import current_stages

_MANIFEST = "/manifest.json"
_ABSENT = object()
# Of an earlier phase's manifest a training's own says only which it was, not whether it is current itself.
_AFTER_A_PHASE = ("train", "draw", "measure", "evaluate", "report")


@dataclass(frozen=True)
class Difference:
    """The published stages that are current here and that DVC does not know as they are, by DVC's names."""

    # dvc.yaml tells them as the configuration does, dvc.lock otherwise: to be recorded.
    unrecorded: list[str] = field(default_factory=list)
    # Made with the settings that dvc.lock holds, as all above them, and other bytes: by another kind of CPU, for
    # instance. Published results stay, unless somebody asks.
    remade: list[str] = field(default_factory=list)
    # dvc.lock holds them, and DVC's cache does not: a clone's, which made what was published.
    uncached: list[str] = field(default_factory=list)
    # dvc.lock holds them; the copies that Git tracks are others.
    uncopied: list[str] = field(default_factory=list)
    # dvc.yaml tells them otherwise than the configuration does: not to be recorded before it is written again.
    undeclared: list[str] = field(default_factory=list)


def difference(projects: Iterable[Project]) -> Difference:
    """Compare what is here of some runs with dvc.yaml and dvc.lock. Reads manifests, and no results.

    Raises:
        ConfigError: the list of published runs, or one of the runs, is wrong.
    """
    wanted, declared, locked = stage_entries(), read_pipeline(), read_lock()
    found, makers, same, cache = Difference(), _makers(wanted), set(), read_cache_folder()
    # Runs may share a stage.
    current = dict.fromkeys(name for project in projects for name in _current(project))
    names = [name for name in current if name in wanted]
    for name in names:
        entry, held = wanted[name], locked.get(name)
        if declared.get(name) != entry:
            found.undeclared.append(name)
        elif held is not None and _has_digests(entry, held) and _has_settings(entry, held):
            same.add(name)
            if not all(content.is_in(cache) for content in held.outs.values()):
                found.uncached.append(name)
            if outdated(name, entry):
                found.uncopied.append(name)
        elif held is not None and _has_settings(entry, held) and _is_whole(entry, locked, makers, same, name):
            same.add(name)
            found.remade.append(name)
        else:
            found.unrecorded.append(name)
    if found.unrecorded:
        # A lock of stages that were made from each other, or it would be nobody's result.
        new = {*found.unrecorded, *found.remade}
        return replace(found, unrecorded=[name for name in names if name in new], remade=[])
    return found


def undeclared(project: Project) -> list[str]:
    """DVC's names of the stages of a published run that dvc.yaml does not tell as the configuration does.

    A changed `dataset`, `bucket` or `cache` gives the run another cache, which lies elsewhere.

    Raises:
        ConfigError: the list of published runs, or one of the runs, is wrong.
    """
    wanted, declared = stage_entries(), read_pipeline()
    names = [stage_name(phase, stage) for phase, stage in chain_of(project)]
    return [name for name in names if name in wanted and declared.get(name) != wanted[name]]


def published_outs(project: Project) -> list[Path]:
    """Files and folders of a run that DVC may have put into the place of what Snakemake made."""
    declared = read_pipeline()
    names = [stage_name(phase, stage) for phase, stage in chain_of(project)]
    return [Path(path) for name in names if name in declared for path in out_paths(declared[name])]


def _current(project: Project) -> list[str]:
    """DVC's names of the stages that are current with everything above them, in order."""
    names, trained = [], True
    for phase in phases(project):
        stages = [stage for stage in current_stages(phase) if trained or stage not in _AFTER_A_PHASE]
        trained = "train" in stages
        made = [(of, stage) for of, stage in chain_of(project) if of.name == phase.name]
        names += [stage_name(of, stage) for of, stage in made if stage in stages]
    return names


def current_options(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """File -> those of its options that a stage of dvc.yaml is made with, as they are now."""
    named = {path: keys for item in entry["params"] for path, keys in item.items()}
    values = {path: read_options(path) for path in named}
    found = {path: {key: _option(values[path], key) for key in keys} for path, keys in named.items()}
    return {
        path: {key: o for key, o in options.items() if o is not _ABSENT} for path, options in found.items()
    }


def _option(values: Any, key: str) -> Any:
    """What stands at a key, or at `section.key`; _ABSENT where nothing does."""
    if isinstance(values, dict) and key in values:
        return values[key]
    section, _, inner = key.partition(".")
    return _option(values[section], inner) if isinstance(values, dict) and section in values else _ABSENT


def _has_settings(entry: dict[str, Any], held: Held) -> bool:
    """Whether dvc.lock holds a stage's command and options."""
    return held.cmd == entry["cmd"] and not any(differences(held.params, current_options(entry)))


def _has_digests(entry: dict[str, Any], held: Held) -> bool:
    """Whether dvc.lock holds the manifests of a stage, and those it was made from, as they are here."""
    manifests = [path for path in (*entry.get("deps", []), *out_paths(entry)) if path.endswith(_MANIFEST)]
    return all(_md5(path) == _recorded_md5({**held.deps, **held.outs}, path) for path in manifests)


def _makers(entries: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Manifest -> the stage that writes it."""
    return {path: name for name, entry in entries.items() for path in out_paths(entry)}


def _is_whole(
    entry: dict[str, Any], locked: dict[str, Held], makers: dict[str, str], same: set[str], name: str
) -> bool:
    """Whether dvc.lock's stage was made from the stages that it holds, and those have their settings still."""
    deps = [path for path in entry.get("deps", []) if path.endswith(_MANIFEST)]
    return all(
        makers[path] in same
        and _recorded_md5(locked[name].deps, path) == _recorded_md5(locked[makers[path]].outs, path)
        for path in deps
    )


def _recorded_md5(contents: Mapping[str, Content], path: str) -> str | None:
    return contents[path].md5 if path in contents else None


def _md5(path: str) -> str:
    """DVC names contents by their MD5."""
    return hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()
