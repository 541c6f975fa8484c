"""Apply the thresholds to one part."""

from darkroom.config.dataset import Filter
from darkroom.filter import select_part
from darkroom.jobs import job
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    counts = select_part(
        snakemake.input.scores,
        snakemake.input.duplicates,
        Filter(**snakemake.params.settings),
        snakemake.output.selection,
    )
    write_part_manifest(
        snakemake.output.manifest, [snakemake.input.scores, snakemake.output.selection], counts
    )
