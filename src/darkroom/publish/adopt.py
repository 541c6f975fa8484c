"""Take over results that were made elsewhere: prove that they are this configuration's, then have Snakemake
note them as made here.

Snakemake judges files by their times and by its own notes of the options that they were made with. A copy has
neither: with today's times all of it would be made again, and with its own times no later change of an option
would be seen. `snakemake --touch --forceall` makes both anew and runs nothing; it asks no questions, so the
manifests are checked first.
"""

import subprocess
import sys
from dataclasses import dataclass, field

from darkroom.config import Project
from darkroom.publish.listed import chain_of
from darkroom.publish.writable import make_writable
from darkroom.stages import folder, manifest_path, problems
from darkroom.store import check_stage


@dataclass
class Found:
    """What is here of a run: the stages, the files that their manifests name, and what is wrong with them."""

    stages: list[str] = field(default_factory=list)
    num_files: int = 0
    num_absent: int = 0
    wrong: list[str] = field(default_factory=list)


def look_at(project: Project) -> Found:
    """Check every stage of a run, and of the phases before it, that has a manifest here."""
    found = Found()
    for phase, stage in chain_of(project):
        checked = check_stage(manifest_path(phase, stage))
        found.wrong += checked.wrong
        if checked.body is None:
            continue
        found.wrong += problems(phase, stage)
        found.num_files += checked.num_named
        found.num_absent += len(checked.absent)
        if phase.name == project.name:
            found.stages.append(stage)
    return found


def adopt(project: Project, stages: list[str]) -> int:
    """Have Snakemake note the stages as made with this configuration; its exit status.

    Their files get new times, in the order in which they would be made: a tenth of a second for each job.
    """
    # Not only what DVC handed over: a copy keeps whatever modes there were.
    make_writable({folder(phase, stage).parent for phase, stage in chain_of(project)})
    command = [sys.executable, "-m", "snakemake", *stages, "--touch", "--forceall", "--cores", "1"]
    return subprocess.run([*command, "--quiet", "all", "--config", f"run={project.name}"]).returncode
