"""The model card of a run, written from its manifests and metrics alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from darkroom.config import Project
from darkroom.report.table import results_markdown
from darkroom.store import sha256_json

_HEAD = {"pipeline_tag": "text-to-image", "tags": ["darkroom"]}


@dataclass(frozen=True)
class Shown:
    """What a card says beside what the manifests do.

    head: more of the metadata. usage: Markdown on drawing with it. files: those beside the card -> their SHA-256.
    """

    head: Mapping[str, str] = field(default_factory=lambda: {"library_name": "diffusers"})
    usage: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def card_text(
    project: Project,
    manifests: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Any],
    shown: Shown = Shown(),
) -> str:
    """Markdown with the metadata that the Hugging Face Hub reads.

    Args:
        project: the run.
        manifests: stage -> its manifest; of several datasets stage/dataset.
        metrics: the content of metrics.json.
        shown: what is said beside.
    """
    beside = "" if shown.files else ", which the bundle beside this card holds in turn"
    pieces = [
        f"---\n{yaml.safe_dump({**shown.head, **_HEAD}, sort_keys=False)}---\n",
        f"# {project.name}\n",
        f"{project.run.description}.\n" if project.run.description else "",
        f"## Draw with it\n\n{shown.usage}\n" if shown.usage else "",
        "## Scores\n",
        results_markdown(metrics) + "\n" + _protocol(metrics),
        "## Made from\n",
        _table(_facts(project, manifests)),
        "## Digests\n",
        f"SHA-256 of what the manifests name{beside}.\n",
        _table(_digests(project, manifests)),
        f"## Files\n\n{_table([(name, f'`{d}`') for name, d in shown.files.items()])}" if shown.files else "",
        "## Check it\n",
        _check(project.name),
    ]
    return "\n".join(piece for piece in pieces if piece)


def _check(run: str) -> str:
    return (
        f"`darkroom verify {run}` in a clone of the project compares every file that is there with these digests\n"
        f"and with `dvc.lock`; `darkroom reproduce {run}` makes the run again and compares its scores.\n"
    )


def _protocol(metrics: Mapping[str, Any]) -> str:
    protocol = metrics["protocol"]
    prompts = protocol["prompts"]
    return (
        f"{prompts['number']} prompts ({prompts['name']}), {protocol['pictures_per_prompt']} pictures each,"
        f" computed in {protocol.get('computed_in', 'unlike types')}; {protocol['intervals']}.\n"
    )


def _facts(project: Project, manifests: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    counts = {stage: body["counts"] for stage, body in manifests.items()}
    train = manifests["train"]["params"]["train"]
    found = []
    for name in project.datasets:
        download, kept = (_stage_of(project, name, stage) for stage in ("download", "filter"))
        source = manifests[download]["params"]["source"]
        num_ok = counts[download].get("status", {}).get("ok")
        found += [
            ("dataset", f"{name}, a source of the kind {source['kind']}"),
            ("rows", f"{counts[download].get('rows', 0):,}, {num_ok or 0:,} of them with a picture"),
            ("kept by the filter", f"{counts[kept].get('kept', 0):,}"),
        ]
        if "share_given" in counts["train"]:
            found.append(("share of the samples", f"{counts['train']['share_given'][name]:.2%}"))
    found.append(("family", str(project.run.model.family)))
    if "num_parameters" in counts["train"]:
        found.append(("parameters", f"{counts['train']['num_parameters']:,}"))
    if project.run.train.initial_run is not None:
        found.append(("goes on from", project.run.train.initial_run))
    found += [
        ("training", f"{counts['train'].get('steps', 0):,} steps of {train['global_batch_size']} samples"),
        ("optimizer", f"{train['optimizer']}, learning rate {train['learning_rate']:g}"),
        ("computed in", ", ".join(counts["train"].get("computed_in", {})) or "not told"),
        ("seed", str(manifests["train"]["params"]["seed"])),
    ]
    return found


def _stage_of(project: Project, dataset: str, stage: str) -> str:
    """What a stage of a dataset is called among the manifests."""
    return stage if len(project.datasets) == 1 else f"{stage}/{dataset}"


def _digests(project: Project, manifests: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    digests = {name: digest for name, digest in manifests["train"]["files"].items() if name == "model"}
    for dataset in project.datasets:
        files = manifests[_stage_of(project, dataset, "download")]["files"]
        what = "list of URLs" if len(project.datasets) == 1 else f"list of URLs of {dataset}"
        digests[what] = next((d for name, d in files.items() if name.endswith("urls.parquet")), "")
    digests["settings"] = sha256_json({stage: body["params"] for stage, body in manifests.items()})
    return [(name, f"`{digest}`") for name, digest in digests.items() if digest]


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]) + "\n"
