"""The run's page, and the manifest of what it shows; the page tells times, so no manifest hashes it."""

from pathlib import Path

from darkroom.jobs import job
from darkroom.store import write_manifest

with job(snakemake.log[0], snakemake.threads):
    print("report needs its inputs")
    write_manifest(
        snakemake.output.manifest,
        stage="report",
        params=snakemake.params.settings,
        upstream={"evaluate": snakemake.input.evaluate},
    )
    print(f"report     {Path(snakemake.output.page).resolve()}")
