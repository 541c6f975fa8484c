"""What a driver does for DVC beside recording at its end: keep results writable, and catch up."""

import atexit
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from darkroom.config import ConfigError, Project
from darkroom.graph import Graph
from darkroom.publish import Difference, difference, published_outs, undeclared
from darkroom.publish.writable import make_writable
from darkroom.stages import STAGES, manifest_path, members, problems
from driver import links
from driver.messages import say


def prepare(workflow: Any, graph: Graph, record: Callable[[], None]) -> None:
    """Before anything is planned: see to what DVC and Snakemake would stumble over in each other's files.

    Raises:
        WorkflowError: a folder is a link that cannot be, or dvc.yaml cannot be read or is not in step.
    """
    links.refuse_broken(graph)
    try:
        for project in graph.asked:
            links.refuse_ways_out(project)
            if "DVC_STAGE" in os.environ:
                refuse_another_pipeline(project)
            make_writable(published_outs(project))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
    atexit.register(_catch_up, workflow, graph, Path.cwd(), record)


def refuse_another_pipeline(project: Project) -> None:
    """Refuse to make for DVC what it looks for elsewhere: it would record old results with new options.

    Raises:
        WorkflowError: names the stages that dvc.yaml tells otherwise than the configuration, and what to do.
    """
    if names := undeclared(project):
        raise WorkflowError(
            f"dvc.yaml is not in step with the configuration ({', '.join(names)}); give"
            " `darkroom publish --write`, then `dvc repro` again"
        )


def _catch_up(workflow: Any, graph: Graph, folder: Path, record: Callable[[], None]) -> None:
    """Where nothing was to be done, Snakemake calls no handler: what is unrecorded is recorded here."""
    if workflow.scheduler is None or len(workflow.dag):
        return
    with contextlib.chdir(folder):
        for project in graph.asked:
            for line in _not_seen(workflow, project):
                say(f"nothing to be done, says Snakemake, but {line}")
                say(
                    f"`darkroom adopt {project.name}` takes over results from elsewhere, if they are this run's"
                )
        if not workflow.dryrun and _differs(graph):
            record()


def _not_seen(workflow: Any, project: Project) -> list[str]:
    """Why what was asked for is stale though Snakemake has not seen it: it has no notes of files copied here."""
    asked = {str(path) for job in workflow.dag.jobs for path in job.output}
    stages = [
        (of, stage)
        for stage in STAGES
        for of in members(project, stage)
        if str(manifest_path(of, stage)) in asked
    ]
    return [line for of, stage in stages for line in problems(of, stage)][:1]


def _differs(graph: Graph) -> bool:
    try:
        return difference(graph.asked) != Difference()
    except ConfigError:
        return True
