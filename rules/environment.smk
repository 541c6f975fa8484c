# Which programs and which library the jobs use: those beside this Python, and this project's own. Included before
# anything of darkroom is imported.
import importlib.util
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError


def use_programs_of(folder):
    """Put a folder first in PATH, for this process and its jobs: no environment need be active."""
    others = [path for path in os.get_exec_path() if path != folder]
    os.environ.update(PATH=os.pathsep.join([folder, *others]))


def refuse_another_library(source):
    """Refuse a darkroom that is not the one in `source`: that of a clone which shares its environment.

    Putting the own one first would be too late: Snakemake has loaded the other's plugins already.
    """
    for package in sorted(path.parent.name for path in source.glob("*/__init__.py")):
        found = importlib.util.find_spec(package)
        used = (
            Path(found.origin).resolve().parents[1] if found and found.origin else None
        )
        if used != source:
            raise WorkflowError(
                f"this is the project {source.parent}, but {sys.executable} runs the library of "
                f"{used.parent if used else 'none'}; `make setup` in {source.parent} gives it an environment of "
                "its own"
            )


def refuse_an_older_set_up(project):
    """Refuse an environment that does not know what the project adds to darkroom, e.g. the demo's source."""
    from darkroom.kinds import not_installed

    pyproject = project / "pyproject.toml"
    missing = not_installed(pyproject)
    if missing:
        raise WorkflowError(
            f"{sys.executable} was set up before {pyproject} named {', '.join(missing)}; `make setup` in {project} "
            "brings it up to date"
        )


if re.search(r"[^\w@%+=:,./-]", sys.executable):
    raise WorkflowError(
        f"{sys.executable}: Snakemake starts scripts by this path as it stands, which a shell does not read as one "
        "word; make the environment in a folder without spaces or signs, and the project may lie where it is"
    )
use_programs_of(str(Path(sys.executable).parent))
refuse_another_library(Path(workflow.basedir, "src").resolve())
refuse_an_older_set_up(Path(workflow.basedir).resolve())
