"""The manifests of a run compared with the configuration, with each other, and with what was measured."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darkroom.metrics.table import METRICS
from darkroom.publish.looked_at import Looked
from darkroom.scorers.table import SCORERS
from darkroom.settings.paths import local_path
from darkroom.stages import metric_digest, scorer_digest, settings_problems, upstream_paths
from darkroom.store import JUDGES, num_parts, part_name, read_part_manifest
from darkroom.store.found import read_bytes, shown

_MAX_BYTES = 1 << 26
# Stages whose parts are the dataset's.
_IN_PARTS = ("download", "filter", "recaption", "rewrite", "bucket", "cache")


def check_settings(looked: Looked) -> None:
    """A stage's manifest is the stage's own, and was made with the configuration; so were its parts."""
    manifest, body = looked.manifest, looked.body
    if not body:
        return
    path = manifest.path
    if body["stage"] != looked.stage:
        looked.wrong.append(
            f"{shown(path)}: is a manifest of the stage {body['stage']!r}, not of {looked.stage}"
        )
    looked.wrong += settings_problems(looked.project, looked.stage, body, path)
    named = upstream_paths(looked.project, looked.stage)
    if body["upstream"].keys() != named.keys():
        looked.wrong.append(
            f"{shown(path)}: was made from {', '.join(body['upstream']) or 'nothing'}, not from"
            f" {', '.join(named) or 'nothing'}"
        )
    for name, right in _settings_of_files(looked).items():
        _check_settings_of(looked, name, right)
    if looked.stage == "score":
        looked.wrong += _other_models(looked)


def check_upstream(looked: Looked, by_path: Mapping[Path, Looked]) -> list[str]:
    """A stage was made from the manifests above it; returns those that are not here."""
    absent = []
    for name, path in upstream_paths(looked.project, looked.stage).items():
        above = by_path[path].manifest
        recorded = looked.body.get("upstream", {}).get(name)
        if recorded is None:
            continue
        if above.digests is None:
            absent.append(str(path))
        elif recorded != above.digests.sha256:
            looked.wrong.append(
                f"{shown(looked.manifest.path)}: was made from another {name} than {shown(above.path)} (SHA-256"
                f" {recorded[:16]}..., not {above.digests.sha256[:16]}...)"
            )
    return absent


def check_parts(stages: Iterable[Looked]) -> None:
    """Every stage has the parts that the dataset is cut into: none is dropped on the way, none is added."""
    by_dataset: dict[str, list[str]] = {}
    for looked in stages:
        if looked.stage not in _IN_PARTS or not looked.body:
            continue
        if looked.stage == "download":
            num_rows, per_part = looked.body["counts"].get("rows"), looked.body["params"].get("rows_per_part")
            if isinstance(num_rows, int) and isinstance(per_part, int) and per_part > 0:
                names = [*map(part_name, range(num_parts(num_rows, per_part))), *looked.project.retries.parts]
                by_dataset[looked.project.dataset_name] = sorted(f"{name}.json" for name in names)
        right = by_dataset.get(looked.project.dataset_name)
        if right is not None and sorted(looked.body["parts"]) != right:
            unlike = sorted(set(looked.body["parts"]) ^ set(right))
            looked.wrong.append(
                f"{shown(looked.manifest.path)}: has not the dataset's {len(right)} parts: {', '.join(unlike[:3])}"
            )


def check_measured(by_stage: Mapping[str, Looked]) -> None:
    """metrics.json tells of the models that were trained, and every metric of the pictures that were drawn."""
    train, draw = by_stage["train"].body, by_stage["draw"].manifest.digests
    evaluate, measure = by_stage["evaluate"], by_stage["measure"]
    for path in _files_of(evaluate, "metrics.json"):
        models = _read(evaluate, path).get("models")
        right = {"trained": "model", "untrained": "untrained"}
        for model, digest in (models if isinstance(models, dict) else {}).items():
            if train and digest != train["files"].get(right.get(model, "")):
                evaluate.wrong.append(f"{shown(path)}: tells of another {model} model than was trained")
    for metric in METRICS:
        for path in _files_of(measure, f"{metric}.protocol.json"):
            if draw is not None and _read(measure, path).get("pictures") != draw.sha256:
                measure.wrong.append(
                    f"{shown(path)}: {metric} was measured on other pictures than were drawn"
                )


def check_copies(looked: Looked) -> None:
    """The copies of tables and metrics that Git tracks are those that the stage's manifest names."""
    for file, read in looked.copies.items():
        copy, recorded = looked.copy.path.parent / file, looked.body.get("files", {}).get(file)
        if recorded is not None and recorded != read.sha256:
            looked.wrong.append(f"{shown(copy)}: is not the file that {shown(looked.manifest.path)} names")


def _settings_of_files(looked: Looked) -> dict[str, str]:
    """Manifest of a scorer or a metric -> digest of what it is made with; those stages gather no parts."""
    names = [name for name in looked.checked.files if name.endswith(".json")]
    if looked.stage == "score":
        listed = looked.project.dataset.scorers.listed()
        scorers = {name: name.removesuffix(".json").rpartition(".")[2] for name in names}
        return {
            name: scorer_digest(looked.project, scorer)
            for name, scorer in scorers.items()
            if scorer in listed and scorer in SCORERS
        }
    if looked.stage == "measure":
        chosen = looked.project.run.measure.chosen
        metrics = {name: name.removesuffix(".json") for name in names}
        return {name: metric_digest(looked.project, m) for name, m in metrics.items() if m in chosen}
    return {}


def _check_settings_of(looked: Looked, name: str, right: str) -> None:
    path = looked.checked.path.parent / name
    try:
        body = read_part_manifest(path)
    except ValueError as error:
        looked.wrong.append(str(error))
        return
    if body["settings"] != right:
        looked.wrong.append(f"{shown(path)}: was made with other settings than the configuration's")
    if not body["files"].items() <= looked.body["files"].items():
        looked.wrong.append(f"{shown(path)}: names files that {shown(looked.checked.path)} does not")
    scorer = name.removesuffix(".json").rpartition(".")[2]
    if body.get(JUDGES, {}) != looked.body.get(JUDGES, {}).get(scorer, {}):
        looked.wrong.append(
            f"{shown(path)}: names other models than {shown(looked.checked.path)} for {scorer}"
        )


def _other_models(looked: Looked) -> list[str]:
    """Components whose files on this machine are not those that scores were made with."""
    wrong = []
    for scorer, models in looked.body.get(JUDGES, {}).items():
        for name, said in models.items() if isinstance(models, dict) else ():
            digest = _digest_here(looked, name)
            if digest is not None and (not isinstance(said, dict) or digest != said.get("sha256")):
                wrong.append(
                    f"{shown(looked.manifest.path)}: {scorer} judged with another {name} than lies in"
                    f" {looked.project.component(name).path}"
                )
    return wrong


def _digest_here(looked: Looked, name: str) -> str | None:
    """The digest of a component's files; None where they are not on this machine, or it is a package's model."""
    if name not in looked.project.components:
        return None
    component = looked.project.component(name)
    # It imports torch, which takes longer than to look at a run without models.
    from darkroom.components.files import fingerprint

    try:
        return fingerprint(component) if local_path(component.path).is_dir() else None
    except ValueError:
        return None


def _files_of(looked: Looked, name: str) -> list[Path]:
    """A file of the results and its copy, as far as they are here and were not changed."""
    here = [looked.checked.path.parent / name] if name in looked.checked.files else []
    return here + ([looked.copy.path.parent / name] if name in looked.copies else [])


def _read(looked: Looked, path: Path) -> dict[str, Any]:
    try:
        body = json.loads(read_bytes(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        looked.wrong.append(f"{shown(path)}: cannot be read ({error})")
        return {}
    return body if isinstance(body, dict) else {}
