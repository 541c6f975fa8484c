"""What one scorer says of one part."""

from darkroom.components.base import Component
from darkroom.jobs import job
from darkroom.score import score_part
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    scored = score_part(
        snakemake.wildcards.scorer,
        snakemake.params.options,
        snakemake.input.table,
        snakemake.input.tar or None,
        snakemake.output.columns,
        {name: Component(**values) for name, values in snakemake.params.components.items()},
    )
    write_part_manifest(
        snakemake.output.manifest,
        [snakemake.output.columns],
        scored.counts,
        snakemake.params.made_with,
        scored.judges,
    )
