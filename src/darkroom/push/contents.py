"""What a repository is sent of a finished run: its model, checked against the manifests, and the card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.config import Project
from darkroom.export import export_file
from darkroom.formats.card import CARD_FILE, usage
from darkroom.formats.table import FORMATS
from darkroom.publish.add import require_finished
from darkroom.publish.bundle import stages_by_card_name
from darkroom.publish.card import Shown, card_text
from darkroom.publish.recorded import difference
from darkroom.publish.stages import stage_name
from darkroom.stages import manifest_path
from darkroom.store import check_stage, read_manifest, sha256_file
from darkroom.store.checks import Checked

DIFFUSERS = "diffusers"
_MODEL, _METRICS = "model", "metrics.json"


@dataclass(frozen=True)
class Contents:
    """What a repository is sent.

    files: path there -> the file here. card: its README. model_sha256: of the model, as the run's manifest has it.
    notes: what its readers have to know of another format than a diffusers folder.
    """

    files: Mapping[str, Path]
    card: str
    model_sha256: str
    notes: tuple[str, ...] = ()


def contents(
    project: Project,
    repo_id: str,
    licence: Mapping[str, str],
    form: str = DIFFUSERS,
    dtype: str | None = None,
    scratch: Path = Path(),
) -> Contents:
    """A run's model as a repository gets it, once it is found to be what the manifests say.

    Args:
        project: the run.
        repo_id: the repository, which the card's example names.
        licence: keys of the card's head.
        form: `diffusers`, or a format of `darkroom export`.
        dtype: of such a format; None is its first.
        scratch: an empty folder for the file of such a format.

    Raises:
        ConfigError: the run, or the list of published ones, is wrong.
        ValueError: the run is not finished, not what its manifests say or not what was published of it; the format
            cannot hold the model.
    """
    checked = verified_model(project)
    assert checked.body is not None
    digest = checked.body["files"][_MODEL]
    if form != DIFFUSERS:
        path, notes = export_file(
            project.name, form, scratch / f"{project.name}{FORMATS[form].ending}", dtype
        )
        lines = [f"`{path.name}`: {FORMATS[form].title}.", *(f"- {note}" for note in notes)]
        shown = Shown(licence, "\n".join(lines), {path.name: sha256_file(path)})
        return Contents({path.name: path}, _card(project, shown), digest, tuple(notes))
    prefix = f"{_MODEL}/"
    read = {
        name.removeprefix(prefix): found.sha256
        for name, found in sorted(checked.files.items())
        if name.startswith(prefix)
    }
    folder = checked.path.parent / _MODEL
    drawn = usage((folder / CARD_FILE).read_text(encoding="utf-8"), repo_id) if CARD_FILE in read else ""
    read.pop(CARD_FILE, None)
    shown = Shown({"library_name": "diffusers", **licence}, drawn, read)
    return Contents({name: folder / name for name in read}, _card(project, shown), digest)


def verified_model(project: Project) -> Checked:
    """What lies in the folder of a finished run's training, of which nothing is wrong.

    Raises:
        ConfigError, ValueError: as `contents`.
    """
    run = project.name
    require_finished(project)
    unlike = difference([project])
    names = {stage_name(project, stage) for stage in ("train", "evaluate")}
    if names & {*unlike.unrecorded, *unlike.remade}:
        raise ValueError(
            f"{run} was published as other bytes than are here: `darkroom publish {run}` publishes these, and"
            " `dvc checkout` brings back those"
        )
    train, evaluate = (check_stage(manifest_path(project, stage)) for stage in ("train", "evaluate"))
    wrong = [*train.wrong, *evaluate.wrong]
    if wrong:
        more = f" (and {len(wrong) - 1} more; `darkroom verify {run}` names all)" if wrong[1:] else ""
        raise ValueError(f"nothing of {run} is pushed: {wrong[0]}{more}")
    for of, name in ((train, _MODEL), (evaluate, _METRICS)):
        if name in of.absent:
            raise ValueError(
                f"{of.path.parent / name}: missing; `dvc pull` brings what was published, `snakemake --config"
                f" run={run}` makes it"
            )
    return train


def _card(project: Project, shown: Shown) -> str:
    stages = stages_by_card_name(project).items()
    manifests: dict[str, Any] = {name: read_manifest(manifest_path(*of)) for name, of in stages}
    path = manifest_path(project, "evaluate").with_name(_METRICS)
    return card_text(project, manifests, json.loads(path.read_bytes()), shown)
