"""Refuses what Snakemake would make again for the time of a script alone."""

from typing import Any

from driver.messages import DriverError

_NUM_NAMED = 3  # jobs that an error names


def refuse_times_of_code(workflow: Any) -> None:
    """Refuse to start jobs whose results are current but for newer times, or another text, of their rule's code.

    The profiles leave Snakemake's trigger `code` out: switching branches gives scripts new times, and would make
    everything again, downloads included. A Snakefile cannot leave it out, so a command without a profile is
    refused before any job starts.

    Raises:
        DriverError: names jobs, and the option that is missing.
    """
    reasons = {job: workflow.dag.reason(job) for job in workflow.dag.needrun_jobs()}
    stale = sorted(
        str(job.output[0])
        for job, reason in reasons.items()
        if reason.code_changed and not (reason.params_changed or reason.input_changed)
    )
    if stale:
        more = f" and {len(stale) - _NUM_NAMED} more" if len(stale) > _NUM_NAMED else ""
        raise DriverError(
            f"only code is newer than {', '.join(stale[:_NUM_NAMED])}{more}: nothing is made again for that. Give"
            " --profile profiles/local (or profiles/slurm, profiles/pbs, or --rerun-triggers input mtime params);"
            " `-R RULE` makes the results of a rule again"
        )
