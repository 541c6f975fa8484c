"""A job's way into the queue: Snakemake's script with the driver's environment around it, given to qsub."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.pbs import records, request
from darkroom.pbs.commands import AWAY
from darkroom.pbs.records import Record

LOGS = Path("logs/pbs")
# What passes by itself: the server is away, or as many jobs as one may have are in the queue.
_PASSES = re.compile(rf"{AWAY.pattern}|would exceed .*limit|Maximum number of jobs already", re.IGNORECASE)
PATIENCE_S, PAUSE_S = 1800.0, 30.0
# Torque takes no longer name.
_NAME_LENGTH = 15
# Variables that are those of the node, or of the job.
_OF_THE_NODE = re.compile(
    r"PBS_\w*|TMPDIR|HOSTNAME|PWD|OLDPWD|SHLVL|_|CUDA_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL"
)

# The exit code is written last, and whole; of a job that PBS puts back into the queue none is left.
_SCRIPT = """#!/bin/sh
cd {project} || exit 1
rm -f {record}/exit
. {record}/environment
/bin/sh {record}/snakejob.sh
code=$?
echo $code > {record}/exit.tmp && mv {record}/exit.tmp {record}/exit
exit $code
"""


class Refused(Exception):
    """A job that is not in the queue; the message says why."""


def submit(jobscript: Path, patience_s: float = PATIENCE_S, pause_s: float = PAUSE_S) -> str:
    """Submit a job of Snakemake's from the project's folder; returns its number.

    What passes by itself is waited for.

    Raises:
        Refused: the job asks for what cannot be, or qsub does not take it.
    """
    try:
        job = _properties(jobscript)
        options = request.options(job["resources"], job["threads"])
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from None
    begun, told = time.monotonic(), False
    while True:
        id, said = _try(job, options, jobscript)
        if id is not None:
            return id
        if not _PASSES.search(said) or time.monotonic() - begun > patience_s:
            raise Refused(f"qsub does not take {job['rule']}: {said}")
        if not told:
            print(
                f"qsub does not take {job['rule']} at present ({said}); asking again every {pause_s:.0f} s"
                f" for {patience_s / 60:.0f} min",
                file=sys.stderr,
            )
            told = True
        time.sleep(pause_s)


def _properties(jobscript: Path) -> dict[str, Any]:
    """What Snakemake writes of a job into its script.

    Raises:
        ValueError: it is no job of one rule.
    """
    line = re.search(r"^# properties = (.*)$", jobscript.read_text(encoding="utf-8"), re.MULTILINE)
    if line is None:
        raise ValueError(f"{jobscript}: no script of Snakemake's, it has no properties")
    job = dict(json.loads(line[1]))
    if job["type"] != "single":
        raise ValueError("groups of jobs are not submitted to PBS: leave --groups out")
    return job


def _try(job: Mapping[str, Any], options: list[str], jobscript: Path) -> tuple[str | None, str]:
    """The number that qsub gives a job, and else what it said."""
    names = re.sub(r"[^\w.+-]", "_", "_".join(job["wildcards"].values()))
    record = records.add(f"{time.strftime('%Y%m%d-%H%M%S')}-{job['jobid']}")
    # Relative: of an absolute path that has a colon in it, PBS takes the first half for a host.
    log = LOGS / f"rule_{job['rule']}" / names / f"{record.folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    record.describe(rule=job["rule"], names=names, pbs=job["resources"]["pbs"], log=str(log))
    script = _write_script(record, jobscript)
    command = [
        "qsub",
        "-N",
        job["rule"][:_NAME_LENGTH],
        "-S",
        "/bin/sh",
        "-r",
        "y",
        "-j",
        "oe",
        "-o",
        str(log),
    ]
    _ask([*command, *options, str(script)], record)
    if record.id is None:
        said = " ".join(
            f"{(record.folder / 'said').read_text()} {(record.folder / 'id').read_text()}".split()
        )
        record.remove()
        return None, said or "it says nothing"
    record.note()
    return record.id, ""


def _write_script(record: Record, jobscript: Path) -> Path:
    shutil.copy(jobscript, record.folder / "snakejob.sh")
    # Not `qsub -V`: what that exports, tokens for servers among it, `qstat -f` shows to every user.
    (record.folder / "environment").touch(mode=0o600)
    (record.folder / "environment").write_text(exports(os.environ))
    script = record.folder / "job.sh"
    folder = shlex.quote(str(record.folder.resolve()))
    script.write_text(_SCRIPT.format(project=shlex.quote(str(Path.cwd())), record=folder))
    return script


def exports(variables: Mapping[str, str]) -> str:
    """The lines that set the driver's variables in a job's shell, less those that a node has of its own."""
    kept = {
        name: value
        for name, value in variables.items()
        if re.fullmatch(r"[A-Za-z_]\w*", name) and not _OF_THE_NODE.fullmatch(name)
    }
    # The profile is the driver's: inside a job Snakemake starts nothing on the cluster.
    kept.pop("SNAKEMAKE_PROFILE", None)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in kept.items())


def _ask(command: list[str], record: Record) -> None:
    """Run qsub, which writes its answer into the record itself: the driver may be told to end meanwhile."""
    with open(record.folder / "id", "wb") as answer, open(record.folder / "said", "wb") as said:
        try:
            qsub = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=answer, stderr=said, start_new_session=True
            )
        except OSError as error:
            said.write(f"qsub: {error}".encode())
            return
        (record.folder / "pid").write_text(str(qsub.pid))
        qsub.wait()
