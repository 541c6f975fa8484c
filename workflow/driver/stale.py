"""What is about to be made again counts as missing from the start."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from darkroom.download import before
from darkroom.store import UNFINISHED

# The rule that fetches pictures.
DOWNLOAD = "download_part"


def remove_manifests(workflow: Any) -> None:
    """Remove the manifest of every stage that this driver makes again, the last stage first.

    Snakemake removes a job's outputs when the job begins. Where one fails before that, or the driver is killed,
    the stages below it keep their manifests, newer than all that is left above them; Snakemake ignores what is
    missing in between, and the next driver would find nothing to do. Without its manifest a stage is one that is
    still to be made, and so are the stages above it that it needs.
    """
    if workflow.touch:
        return
    planned = set(workflow.dag.needrun_jobs())
    made_in_order = [job for level in workflow.dag.toposorted() for job in level if job in planned]
    for job in reversed(made_in_order):
        for output in job.output:
            if Path(output).name == "manifest.json":
                Path(output).unlink(missing_ok=True)


def set_pictures_aside(workflow: Any) -> None:
    """Keep what parts of a download have that are made again for other rows, for their jobs to take over.

    Where somebody forces a part, or reads files of this machine, everything is got again.
    """
    if workflow.touch:
        return
    for job in workflow.dag.needrun_jobs():
        if job.rule.name == DOWNLOAD and not workflow.dag.reason(job).forced and job.params.pictures is None:
            before.set_aside(job.output.tar, job.params.made_with)


def remove_unfinished(outputs: Iterable[str | Path]) -> None:
    """Remove what jobs that were killed while they wrote have left beside `outputs`.

    Nobody else writes these: the driver holds the results, and a job of an earlier driver that still runs fails
    when its file is gone, before it could replace a newer one.
    """
    names: dict[Path, set[str]] = {}
    for output in map(Path, outputs):
        names.setdefault(output.parent, set()).add(output.name)
    for folder, expected in names.items():
        for left in folder.glob(".*.tmp"):
            unfinished = UNFINISHED.fullmatch(left.name)
            if unfinished is None or unfinished[1] not in expected:
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
