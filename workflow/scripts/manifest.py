"""A stage's manifest from its part manifests, its settings and the upstream manifests."""

from darkroom.jobs import job, summary_line, tell
from darkroom.store import write_manifest

# Inputs that are this stage's own; every other is an upstream manifest, or none where that stage is not there.
OWN = ("parts", "files")

with job(snakemake.log[0]):
    body = write_manifest(
        snakemake.output.manifest,
        stage=snakemake.params.stage,
        params=snakemake.params.settings,
        upstream={name: path for name, path in snakemake.input.items() if path and name not in OWN},
        part_manifests=snakemake.input.parts,
        files=snakemake.input.get("files", []),
    )
    tell(summary_line(body["stage"], body["counts"]))
