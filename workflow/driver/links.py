"""Folders of the project that are links: refused where they lead nowhere, and where DVC does not follow them."""

import os
from collections.abc import Iterable
from pathlib import Path

from snakemake.exceptions import WorkflowError

from darkroom.config import Project
from darkroom.graph import Graph
from darkroom.publish import published_outs, published_runs
from darkroom.stages import STAGES, folder, members


def refuse_broken(graph: Graph) -> None:
    """Refuse a link that leads nowhere, as to a scratch disk that was cleared or is not mounted.

    Raises:
        WorkflowError: names the link, where it leads, and what to do.
    """
    of_runs = {
        folder(of, stage)
        for project in graph.runs.values()
        for stage in STAGES
        for of in members(project, stage)
    }
    checkpoints = {Path("checkpoints", name) for name in graph.runs}
    for path in _with_folders_above({*of_runs, *checkpoints, Path("logs")}):
        if path.is_symlink() and not path.exists():
            target = os.readlink(path)
            raise WorkflowError(
                f"{path} is a link to {target}, which is not there. Mount its disk, make the folder"
                f" (mkdir -p {target}), or remove the link (rm {path})"
            )


def refuse_ways_out(project: Project) -> None:
    """Refuse a folder of a published run that is a link out of the project: DVC does not follow it.

    Raises:
        WorkflowError: names the link, where it leads, and what to do instead.
    """
    if project.name not in published_runs():
        return
    root = Path.cwd().resolve()
    for path in _with_folders_above(published_outs(project)):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise WorkflowError(
                f"{path} is a link to {os.readlink(path)}, out of the project, and DVC, which records the"
                f" published run {project.name}, does not follow it. Keep the whole clone on that disk,"
                f" or mount the folder there (mount --bind {os.readlink(path)} {path}). checkpoints/ may"
                " be a link"
            )


def _with_folders_above(paths: Iterable[Path]) -> list[Path]:
    """The paths and the folders that they lie in, below the project's, outer ones first."""
    return sorted({above for path in paths for above in (path, *path.parents)}, key=lambda p: p.parts)
