"""Scorers of a part that look at its pictures: where several have to, one job does so for all of them."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from darkroom.score import together

# The rule that makes the file of one scorer and one part.
SCORE = "score_part"


def plan(workflow: Any) -> None:
    """Of each part have one job score for all scorers of pixels that have to, as Snakemake has found, and the
    others wait for it.

    It is no file of the graph that they wait for: which scorers have to score together changes from run to run,
    and Snakemake would score with all of them again where a job's inputs change.
    """
    if workflow.touch:
        return
    parts: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for job in workflow.dag.needrun_jobs():
        if job.rule.name == SCORE and job.input.tar:
            parts[job.wildcards.dataset, job.wildcards.part].append(job)
    clear(workflow)
    for jobs in parts.values():
        first, *others = sorted(jobs, key=lambda job: str(job.wildcards.scorer))
        if others:
            together.note(first.output.columns, {job.output.columns: _asked(job) for job in others})
            for job in others:
                _wait(workflow.dag, job, first)


def clear(workflow: Any) -> None:
    """Remove what was noted for the jobs of this driver, or of one that was killed."""
    jobs = (job for job in workflow.dag.jobs if job.rule.name == SCORE)
    for folder in {Path(job.output.columns).parent for job in jobs}:
        together.clear(folder)


def _asked(job: Any) -> dict[str, Any]:
    names = ("options", "components", "made_with")
    said = {name: getattr(job.params, name) for name in names}
    return {"scorer": str(job.wildcards.scorer), "references": list(map(str, job.input.references)), **said}


def _wait(dag: Any, job: Any, first: Any) -> None:
    """Have a job wait for another one, of which it needs no file.

    Snakemake has no public way for that: how many jobs one waits for stands in `_n_until_ready`.
    tests/test_chain_together.py sees that it works.
    """
    dag.dependencies[job][first] = set()
    dag.depending[first][job] = set()
    dag._n_until_ready[job] += 1
    dag.ready_jobs.discard(job)
