"""What is published of a run, in one small file that can be signed, and its model card.

`published/runs/RUN/bundle.json` holds the digests of all manifests, metrics and tables that Git tracks of a run;
the manifests hold those of everything else. So one signature covers the run.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.config import Project
from darkroom.publish.card import card_text
from darkroom.publish.listed import chain_of, published_runs
from darkroom.publish.looked_at import Looked
from darkroom.publish.signature import check_signature
from darkroom.publish.stages import stage_name
from darkroom.publish.tracked import FOLDER, copied_names, tracked_path
from darkroom.stages import members
from darkroom.store import json_text, replacing, sha256_file
from darkroom.store.found import described, entries, read_bytes, shown

BUNDLE, CARD, SIGNATURE = "bundle.json", "README.md", "bundle.json.sig"
_MAX_BYTES = 1 << 28


def bundle_path(run: str) -> Path:
    """Where a run's bundle lies; its signature and the run's model card lie beside it."""
    return FOLDER / "runs" / run / BUNDLE


def missing_copies(project: Project) -> list[Path]:
    """What Git should track of a run, and is not here."""
    return [path for path in _copies(project) if not path.is_file()]


def bundle_texts(project: Project) -> dict[Path, str]:
    """The card and the bundle of a run's copies that Git tracks, by path; {} where a copy is missing."""
    if missing_copies(project):
        return {}
    digests = {str(path): sha256_file(path) for path in _copies(project)}
    return _texts(project, digests)


def write_bundle(project: Project) -> list[str]:
    """Write a run's bundle and card, where they are not those of the copies that Git tracks; returns what to tell.

    A signature of another bundle is removed.
    """
    path, told = bundle_path(project.name), []
    for where, text in bundle_texts(project).items():
        if not where.is_file() or where.read_text(encoding="utf-8") != text:
            with replacing(where) as beside:
                beside.write_text(text, encoding="utf-8")
            told.append(f"{where} written")
    signature = path.with_name(SIGNATURE)
    if f"{path} written" in told and signature.exists():
        signature.unlink()
        told.append(f"{signature} was of another bundle and is removed; sign with `--sign KEY`")
    return told


def keep_bundle(project: Project) -> list[str]:
    """Bring the bundle and card of a published run in step with what was recorded of it, if that is all of it.

    Returns what to tell: only of a signature that is lost.
    """
    if project.name not in published_runs() or missing_copies(project):
        return []
    return [line for line in write_bundle(project) if SIGNATURE in line]


def check_bundle(
    project: Project, stages: list[Looked], signers: Path | None
) -> tuple[str, list[str], list[str]]:
    """Who signed a published run, what is wrong with its bundle and card, and what could not be checked.

    Args:
        project: the run.
        stages: what is here of it.
        signers: the file of allowed signers; None asks for no signature.
    """
    path = bundle_path(project.name)
    folder, wrong = path.parent, []
    here = entries(folder)
    for name, kind in sorted(here.items()):
        if kind != "file":
            wrong.append(f"{shown(folder / name)}: {described(folder / name)}, which is no published file")
        elif name not in (BUNDLE, CARD, SIGNATURE):
            wrong.append(f"{shown(folder / name)}: no file of the published run")
    if wrong:
        return "", wrong, []
    if BUNDLE not in here:
        if signers is not None:
            return "", [f"{path}: missing, so nobody signed {project.name}"], []
        return "", [], [f"{path}: not here; `darkroom publish {project.name}` writes it"]
    wrong = _unlike(project, stages, folder)
    if signers is None:
        told = (
            [f"{folder / SIGNATURE}: whose signature it is; give --signers FILE"] if SIGNATURE in here else []
        )
        return "", wrong, told
    if SIGNATURE not in here:
        return "", [*wrong, f"{folder / SIGNATURE}: missing, so nobody signed {project.name}"], []
    try:
        return check_signature(path, folder / SIGNATURE, signers), wrong, []
    except ValueError as error:
        return "", [*wrong, str(error)], []


def _unlike(project: Project, stages: list[Looked], folder: Path) -> list[str]:
    """Where bundle and card are not those of the copies that are here."""
    digests = {
        str(looked.copy.path.parent / file): read.sha256
        for looked in stages
        for file, read in looked.copies.items()
    }
    wrong = [
        f"{path}: missing, though {folder / BUNDLE} is here"
        for path in _copies(project)
        if str(path) not in digests
    ]
    if wrong:
        return wrong
    try:
        wrong = [
            f"{path}: is not that of the manifests and metrics in {FOLDER}; `darkroom publish --write` writes it"
            for path, text in _texts(project, digests).items()
            if read_bytes(path, _MAX_BYTES) != text.encode()
        ]
    except OSError as error:
        return [f"{shown(folder / CARD)}: cannot be read ({error.strerror})"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{folder / CARD}: the manifests and metrics in {FOLDER} give no card ({error!r})"]
    return wrong


def _copies(project: Project) -> list[Path]:
    return [
        tracked_path(stage_name(phase, stage), name)
        for phase, stage in stages_once(project)
        for name in copied_names(stage)
    ]


def stages_once(project: Project) -> list[tuple[Project, str]]:
    """Every stage once; phases share the dataset's."""
    return list({stage_name(phase, stage): (phase, stage) for phase, stage in chain_of(project)}.values())


def stages_by_card_name(project: Project) -> dict[str, tuple[Project, str]]:
    """The stages that a card tells of, by what it calls them: `train`, and of several datasets `download/NAME`."""
    own = {}
    for of, stage in stages_once(project):
        is_shared = len(members(project, stage)) > 1
        own[f"{stage}/{of.dataset_name}" if is_shared else stage] = (of, stage)
    return own


def _texts(project: Project, digests: Mapping[str, str]) -> dict[Path, str]:
    """Card and bundle; `digests` are those of the copies, by path."""
    path, card = bundle_path(project.name), _card(project)
    bundle = {
        "run": project.name,
        "card": hashlib.sha256(card.encode()).hexdigest(),
        "files": {copy: digests[copy] for copy in map(str, _copies(project))},
    }
    return {path.with_name(CARD): card, path: json_text(bundle)}


def _card(project: Project) -> str:
    """The card of the copies that are here."""
    own = {name: stage_name(of, stage) for name, (of, stage) in stages_by_card_name(project).items()}
    manifests = {stage: _read(tracked_path(name, "manifest.json")) for stage, name in own.items()}
    return card_text(project, manifests, _read(tracked_path(own["evaluate"], "metrics.json")))


def _read(path: Path) -> Any:
    return json.loads(read_bytes(path, _MAX_BYTES))
