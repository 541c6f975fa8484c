"""What one scorer says of the whole dataset."""

from darkroom.jobs import job
from darkroom.score import score_dataset
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    scored = score_dataset(
        snakemake.wildcards.scorer,
        snakemake.params.options,
        snakemake.input.tables,
        snakemake.output.columns,
        snakemake.input.before,
        snakemake.input.scores,
    )
    write_part_manifest(
        snakemake.output.manifest,
        [snakemake.output.columns],
        scored.counts,
        snakemake.params.made_with,
        scored.judges,
    )
